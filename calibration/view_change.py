"""Whether a view of the board tells something that an earlier one does not."""

from __future__ import annotations

import numpy as np

from calibration.board import BoardView

# A board's frame beyond which a view counts as another one. Tilting from 20 to 30 degrees squeezes it by 8 %, which
# leaves a residual of 3 %; noise of 0.1 px on a board of 100 px leaves 0.2 %.
_MOVED = 0.06  # of the picture's width
_NEARER = 0.12
_TURNED_RAD = np.radians(10.0)
_TILTED = 0.025
_SHARED = 0.6  # of the corners of the one that shows more
_LEAST = 4


def is_new(view: BoardView, other: BoardView) -> bool:
    """Say whether the board moved, came nearer, turned or tilted from one view to the other, or shows another part.

    The corners that both show are laid over each other by a shift, a scale and a turn; what is left is tilt.
    """
    _, at, at_other = np.intersect1d(view.ids, other.ids, assume_unique=True, return_indices=True)
    if len(at) < max(_LEAST, _SHARED * max(len(view.ids), len(other.ids))):
        return True
    a, b = (pixels[:, 0] + 1j * pixels[:, 1] for pixels in (view.pixels[at], other.pixels[at_other]))
    middle_a, middle_b = a.mean(), b.mean()
    if abs(middle_a - middle_b) > _MOVED * view.size[1]:
        return True
    a, b = a - middle_a, b - middle_b
    power = float(np.sum(np.abs(a) ** 2))
    if power <= 0.0:
        return True
    # least squares: b is about `turn` * a
    turn = complex(np.sum(np.conj(a) * b) / power)
    if abs(np.log(max(abs(turn), 1e-9))) > np.log1p(_NEARER) or abs(np.angle(turn)) > _TURNED_RAD:
        return True
    left = float(np.sqrt(np.sum(np.abs(b - turn * a) ** 2) / np.sum(np.abs(b) ** 2)))
    return left > _TILTED

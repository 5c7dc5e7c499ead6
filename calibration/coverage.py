"""What a set of views lacks: parts of the picture without corners, tilts and distances that nobody has held yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardView

Array = NDArray[np.float64]
ROWS, COLUMNS = 4, 5
ENOUGH_CORNERS = 8
ENOUGH_TILTED = 2
TILT_DEG = 12.0
_DISTANCE_RATIO = 1.5
_ENOUGH_VIEWS = 15
_VERTICAL = ("top", "upper middle", "lower middle", "bottom")
_HORIZONTAL = ("left", "left of the middle", "middle", "right of the middle", "right")
_TILTS = (
    ("its right side is further away", 0),
    ("its left side is further away", 1),
    ("its lower side is further away", 2),
    ("its upper side is further away", 3),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """What the views cover.

    Attributes:
        cells: shape (ROWS, COLUMNS), corners in each part of the picture.
        tilts_deg: shape (N, 2) per view, how much further away the right and the lower side are, as an angle [deg].
        distances_m: shape (N,), to the board's middle.
        advice: what to do, one line each; empty when nothing is missing.
    """

    cells: NDArray[np.int64]
    tilts_deg: Array
    distances_m: Array
    advice: tuple[str, ...]


def coverage(views: Sequence[BoardView], poses: Sequence[Array], middle_m: Array) -> Coverage:
    """Return what views cover.

    Args:
        views: of one size.
        poses: `T_camera_target` (4, 4) of each; rough ones will do.
        middle_m: shape (3,), the middle of the board in its own frame.
    """
    cells = np.zeros((ROWS, COLUMNS), dtype=np.int64)
    for view in views:
        height, width = view.size
        row = np.clip((view.pixels[:, 1] + 0.5) / height * ROWS, 0, ROWS - 1).astype(int)
        column = np.clip((view.pixels[:, 0] + 0.5) / width * COLUMNS, 0, COLUMNS - 1).astype(int)
        np.add.at(cells, (row, column), 1)
    tilts = np.array([_tilt_deg(T, middle_m) for T in poses]).reshape(-1, 2)
    distances = np.array([np.linalg.norm(T[:3, :3] @ middle_m + T[:3, 3]) for T in poses])
    return Coverage(
        cells=cells, tilts_deg=tilts, distances_m=distances, advice=tuple(_advice(len(views), cells, tilts, distances))
    )


def _tilt_deg(T_camera_board: Array, middle_m: Array) -> Array:
    """How the board leans against the line of sight to its middle: right side away, lower side away [deg]."""
    sight = T_camera_board[:3, :3] @ middle_m + T_camera_board[:3, 3]
    forward = sight / max(float(np.linalg.norm(sight)), 1e-9)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= max(float(np.linalg.norm(right)), 1e-9)
    down = np.cross(forward, right)
    normal = T_camera_board[:3, 2] if T_camera_board[:3, 2] @ forward > 0.0 else -T_camera_board[:3, 2]
    # a plane whose normal leans to the left has its right side further away
    return np.degrees(np.arctan2([-normal @ right, -normal @ down], normal @ forward))


def _advice(count: int, cells: NDArray[np.int64], tilts: Array, distances: Array) -> list[str]:
    lines = []
    if count < _ENOUGH_VIEWS:
        lines.append(f"take {_ENOUGH_VIEWS - count} more pictures (there are {count} usable ones)")
    bare = np.argwhere(cells < ENOUGH_CORNERS)
    if len(bare):
        places = ", ".join(f"{_VERTICAL[row]} {_HORIZONTAL[column]}" for row, column in bare[:6])
        more = f" and {len(bare) - 6} more places" if len(bare) > 6 else ""
        lines.append(f"hold the board so that the picture shows it at the {places}{more}; part of it is enough")
    sides = np.stack([tilts[:, 0], -tilts[:, 0], tilts[:, 1], -tilts[:, 1]]) if len(tilts) else np.zeros((4, 0))
    for words, side in _TILTS:
        seen = int((sides[side] >= TILT_DEG).sum())
        if seen < ENOUGH_TILTED:
            lines.append(f"tilt the board so that {words}, by 15 to 45 degrees (seen {seen} times)")
    if len(distances) and distances.max() < _DISTANCE_RATIO * distances.min():
        lines.append(
            f"hold it nearer and further away (all between {distances.min():.2f} m and {distances.max():.2f} m)"
        )
    return lines

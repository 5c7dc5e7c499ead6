"""Whether board and arm stand still: over the last half second, not between two looks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardView
from robot.arm_state import ArmState
from robot.geometry import rotation_angle

Array = NDArray[np.float64]
STILL_S = 0.5
KEPT_S = 1.5  # of the arm's states, so that they reach from before a picture's still time to the present
# A board in two hands drifts by 1 to 2 mm in that time. At 5 px/s a picture of 10 ms is blurred by 0.05 px.
STILL_SHARE = 0.004  # of the picture's width
STILL_M, STILL_RAD = 5e-4, np.radians(0.1)  # of the hand


class BoardStillness:
    """The views of one camera, as they come."""

    def __init__(self) -> None:
        self._views: deque[tuple[float, BoardView]] = deque()

    def add(self, captured_s: float, view: BoardView | None) -> None:
        """Take in a view; None, where the board is not seen, begins anew."""
        if view is None:
            self._views.clear()
            return
        self._views.append((captured_s, view))
        while len(self._views) > 2 and self._views[1][0] <= captured_s - 1.2 * STILL_S:
            self._views.popleft()

    @property
    def for_s(self) -> float:
        """For how long the newest view has been where it is; hardly more than `STILL_S` is looked at [s]."""
        if not self._views:
            return 0.0
        newest_s, newest = self._views[-1]
        limit_px = STILL_SHARE * newest.size[1]
        since_s = newest_s
        for captured_s, view in reversed(self._views):
            moved = moved_px(view, newest)
            if moved is None or moved > limit_px:
                break
            since_s = captured_s
        return newest_s - since_s


class ArmStillness:
    """The states of an arm, as they come."""

    def __init__(self) -> None:
        self._states: deque[ArmState] = deque()

    def add(self, states: Sequence[ArmState]) -> None:
        """Take in states, oldest first."""
        self._states.extend(states)
        while len(self._states) > 2 and self._states[1].measured_s <= self._states[-1].measured_s - KEPT_S:
            self._states.popleft()

    @property
    def since_s(self) -> float:
        """Since when the hand has been where it is now; `KEPT_S` are looked at [s]. Infinity without a state."""
        if not self._states:
            return math.inf
        newest = self._states[-1]
        since_s = newest.measured_s
        for state in reversed(self._states):
            if not same_place(state.T_base_tcp, newest.T_base_tcp):
                break
            since_s = state.measured_s
        return since_s


def moved_px(a: BoardView, b: BoardView) -> float | None:
    """Return how far corners are apart that both views show, root mean square [px]; None without any."""
    _, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    if not len(at_a):
        return None
    return float(np.sqrt(np.mean(np.sum((a.pixels[at_a] - b.pixels[at_b]) ** 2, axis=1))))


def same_place(T: Array, other: Array) -> bool:
    """Whether two poses (4, 4) of the hand are the same within what counts as rest."""
    near = bool(np.linalg.norm(T[:3, 3] - other[:3, 3]) <= STILL_M)
    return near and rotation_angle(T[:3, :3], other[:3, :3]) <= STILL_RAD

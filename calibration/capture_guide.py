"""What a set of shots lacks, said while there is still somebody in front of the cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.coverage import COLUMNS, ENOUGH_CORNERS, ROWS, coverage
from calibration.intrinsics import rough_poses
from calibration.motion_diversity import motion_diversity
from calibration.picture_views import PictureView, ViewsFile, look
from calibration.sharpness import BLURRED_PX, blurred
from calibration.view_change import is_new

Array = NDArray[np.float64]
ENOUGH_POSES = 15


class CameraGuide:
    """The pictures of one camera that are kept, and what they lack.

    Args:
        board: what they show.
        store: keeps what each shows, so that starting again need not look anew.
    """

    def __init__(self, board: Board, store: ViewsFile) -> None:
        self._board, self._store = board, store
        self._pictures: list[PictureView] = []
        self.cells = np.zeros((ROWS, COLUMNS), dtype=np.int64)
        self.advice: tuple[str, ...] = ()
        self._judge()

    @property
    def count(self) -> int:
        """How many show the board."""
        return len(self.views)

    @property
    def views(self) -> list[BoardView]:
        """What they show."""
        return [picture.view for picture in self._pictures if picture.view is not None]

    def add(self, files: Sequence[Path], progress: Callable[[PictureView], None] = lambda one: None) -> None:
        """Take in pictures from the disk, as the later steps will read them."""
        self._pictures += look(files, self._board, self._store, progress)
        self._judge()

    def is_blurred(self, edge_px: float | None) -> bool:
        """Whether a picture would be, beside those that are kept; the first is judged by itself."""
        edges = [picture.edge_px for picture in self._pictures if picture.view is not None]
        if not edges:
            return edge_px is not None and edge_px > BLURRED_PX
        return bool(blurred([*edges, edge_px])[-1])

    def is_new(self, view: BoardView) -> bool:
        """Whether a view tells something that none of those kept does."""
        return all(is_new(view, other) for other in self.views)

    def picture_of_cells(self) -> list[str]:
        """Return the parts of the picture as lines: `#` where corners were seen, `.` where there are too few."""
        return ["".join("#" if count >= ENOUGH_CORNERS else "." for count in row) for row in self.cells.tolist()]

    def _judge(self) -> None:
        views = self.views
        middle_m = np.array([0.5 * self._board.size_m[0], 0.5 * self._board.size_m[1], 0.0])
        covered = coverage(views, rough_poses(self._board, views), middle_m)
        self.cells, self.advice = covered.cells, covered.advice


def hand_advice(T_base_hand: Array) -> tuple[str, ...]:
    """Return what poses of the hand (n, 4, 4) lack for a hand-eye calibration."""
    lines = []
    if len(T_base_hand) < ENOUGH_POSES:
        lines.append(f"{ENOUGH_POSES - len(T_base_hand)} more shots with other poses of the hand")
    if len(T_base_hand) >= 2:
        lines += motion_diversity(T_base_hand[:, :3, :3], "hand").advice()
    return tuple(lines)


def hand_turned_deg(T_base_hand: Array) -> Array:
    """Return by how much the hand has turned about its x, y and z axes (3,) [deg]."""
    if len(T_base_hand) < 2:
        return np.zeros(3)
    return motion_diversity(T_base_hand[:, :3, :3], "hand").turned_deg

"""A board, lenses and views of which the truth is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.rehearsal import handheld, middle_of, seen_from
from perception.camera_model import CameraModel
from robot.geometry import pose, rotvec_to_matrix

Array = NDArray[np.float64]
BOARD = Board(columns=6, rows=8, square_m=0.03, marker_m=0.022)
NARROW = CameraModel(
    kind="brown", width=640, height=480, fx=600.0, fy=602.0, cx=322.0, cy=238.0,
    distortion=(-0.2, 0.08, 0.001, -0.0005, 0.0),
)  # fmt: skip
WIDE = CameraModel(
    kind="fisheye", width=640, height=480, fx=220.0, fy=221.0, cx=318.0, cy=243.0, distortion=(0.02, -0.01, 0.003, 0.0)
)
MIDDLE = middle_of(BOARD)


def facing(distance_m: float, tilt_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Array:
    """`T_camera_board` with the board's middle on the optical axis."""
    R = rotvec_to_matrix(np.array(tilt_rad))
    return pose(R, np.array([0.0, 0.0, distance_m]) - R @ MIDDLE)


def handheld_views(
    model: CameraModel, count: int, seed: int, *, noise_px: float = 0.3, tilt_rad: float = 0.6
) -> list[BoardView]:
    """Views of a board held by hand."""
    random = np.random.default_rng(seed)
    views: list[BoardView] = []
    while len(views) < count:
        view = seen_from(model, handheld(model, BOARD, random, tilt_rad=tilt_rad), random, noise_px, BOARD)
        if view is not None:
            views.append(view)
    return views

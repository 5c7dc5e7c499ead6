"""A board, lenses and views of which the truth is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.camera_model import CameraModel
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
MIDDLE = np.array([0.5 * BOARD.size_m[0], 0.5 * BOARD.size_m[1], 0.0])


def facing(distance_m: float, tilt_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Array:
    """`T_camera_board` with the board's middle on the optical axis."""
    R = rotvec_to_matrix(np.array(tilt_rad))
    return pose(R, np.array([0.0, 0.0, distance_m]) - R @ MIDDLE)


def seen_from(
    model: CameraModel, T_camera_board: Array, random: np.random.Generator, noise_px: float, board: Board = BOARD
) -> BoardView | None:
    """The view that a camera has, with noise; None where it sees too little."""
    points = board.corners_m @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
    pixels = model.project(points)
    # a polynomial distortion comes back into the picture for points far outside of it
    back = model.rays(pixels)
    with np.errstate(invalid="ignore", divide="ignore"):
        true = np.abs(back - points[:, :2] / points[:, 2:]).max(axis=1) < 1e-3
    inside = (pixels > 2.0).all(axis=1) & (pixels < [model.width - 3.0, model.height - 3.0]).all(axis=1)
    ids = np.flatnonzero((points[:, 2] > 0.02) & true & inside)
    grid = np.stack([ids % (board.columns - 1), ids // (board.columns - 1)], axis=1)
    if len(ids) < 8 or np.linalg.svd(grid - grid.mean(axis=0), compute_uv=False)[1] < 0.5:
        return None
    noisy = pixels[ids] + random.normal(0.0, noise_px, (len(ids), 2))
    return BoardView(ids=ids, pixels=noisy, size=(model.height, model.width))


def handheld(
    model: CameraModel, random: np.random.Generator, *, near_m: float = 0.25, far_m: float = 0.6, tilt_rad: float = 0.6
) -> Array:
    """`T_camera_board` as a person would hold it: anywhere in the picture, tilted."""
    while True:
        pixel = np.array([[random.uniform(0.1, 0.9) * model.width, random.uniform(0.1, 0.9) * model.height]])
        ray = model.rays(pixel)[0]
        if np.isfinite(ray).all():
            break
    forward = np.array([*ray, 1.0]) / np.linalg.norm([*ray, 1.0])
    across = np.cross([0.0, 1.0, 0.0], forward)
    across /= np.linalg.norm(across)
    axis = random.normal(size=3)
    turn = rotvec_to_matrix(axis / np.linalg.norm(axis) * random.uniform(0.1, tilt_rad))
    R = np.stack([across, np.cross(forward, across), forward], axis=1) @ turn
    return pose(R, forward * random.uniform(near_m, far_m) - R @ MIDDLE)


def handheld_views(
    model: CameraModel, count: int, seed: int, *, noise_px: float = 0.3, tilt_rad: float = 0.6
) -> list[BoardView]:
    """Views of a board held by hand."""
    random = np.random.default_rng(seed)
    views: list[BoardView] = []
    while len(views) < count:
        view = seen_from(model, handheld(model, random, tilt_rad=tilt_rad), random, noise_px)
        if view is not None:
            views.append(view)
    return views

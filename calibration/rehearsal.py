"""Where a person would hold the board, and what a camera would see, for rehearsals of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from perception.camera_model import CameraModel
from robot.geometry import pose, rotvec_to_matrix

Array = NDArray[np.float64]


def middle_of(board: Board) -> Array:
    """Return the middle (3,) of a board in its own frame [m]."""
    return np.array([0.5 * board.size_m[0], 0.5 * board.size_m[1], 0.0])


def looking(eye: Sequence[float], target: Sequence[float]) -> Array:
    """Return the pose (4, 4) of a camera at `eye` that looks at `target` [m], its picture upright."""
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return pose(np.stack([right, np.cross(forward, right), forward], axis=1), np.array(eye, dtype=np.float64))


def seen_from(
    model: CameraModel, T_camera_board: Array, random: np.random.Generator, noise_px: float, board: Board
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
    model: CameraModel,
    board: Board,
    random: np.random.Generator,
    *,
    near_m: float = 0.25,
    far_m: float = 0.6,
    tilt_rad: float = 0.6,
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
    return pose(R, forward * random.uniform(near_m, far_m) - R @ middle_of(board))

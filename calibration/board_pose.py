"""Where the board is as one picture of a calibrated camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.reprojection import skew
from perception.camera_model import CameraModel
from robot.geometry import inverse_pose, pose, rotvec_to_matrix

Array = NDArray[np.float64]
_STEPS = 20
_UNAMBIGUOUS = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class BoardPose:
    """Pose of the board from one picture.

    Attributes:
        T_camera_target: pose (4, 4) of the board in the camera's frame, OpenCV axes.
        residuals_px: shape (N, 2), seen less predicted [px].
        ambiguous: True where a board tilted the other way would explain the picture nearly as well; a small or far
            board seen face on has two such poses (D. Oberkampf et al., "Iterative pose estimation using coplanar
            feature points", 1996).
    """

    T_camera_target: Array
    residuals_px: Array
    ambiguous: bool

    @property
    def T_target_camera(self) -> Array:
        """Pose (4, 4) of the camera in the board's frame."""
        return inverse_pose(self.T_camera_target)

    @property
    def rms_px(self) -> float:
        """Root mean square of the distances between corners seen and predicted [px]."""
        return float(np.sqrt(np.mean(np.sum(self.residuals_px**2, axis=1))))


def board_pose(model: CameraModel, board: Board, view: BoardView) -> BoardPose | None:
    """Return the board's pose, refined on the pixels; None where the camera could not see it like that."""
    return pose_of_points(model, board.corners_m[view.ids], view.pixels)


def pose_of_points(model: CameraModel, points: Array, pixels: Array) -> BoardPose | None:
    """Return the pose of points (N, 3) in one plane z = 0 [m] that are seen at `pixels` (N, 2), four or more.

    Both solutions of T. Collins and A. Bartoli, "Infinitesimal plane-based pose estimation" (2014), are refined by
    Gauss-Newton on the pixels and the better is taken.
    """
    rays = model.rays(pixels)
    good = np.isfinite(rays).all(axis=1)
    if good.sum() < 4:
        return None
    try:
        _, turns, places, _ = cv2.solvePnPGeneric(
            np.ascontiguousarray(points[good]).reshape(-1, 1, 3),
            np.ascontiguousarray(rays[good]).reshape(-1, 1, 2),
            np.eye(3),
            np.zeros(4),
            flags=cv2.SOLVEPNP_IPPE,
        )
    except cv2.error:  # points on one line
        return None
    found: list[tuple[float, Array, Array]] = []
    for turn, place in zip(turns, places, strict=True):
        T = pose(rotvec_to_matrix(_floats(turn)), _floats(place))
        if not np.isfinite(T).all():
            continue
        T, residuals = _refined(model, points, pixels, T)
        cost = float(np.sum(residuals**2))
        depth = points @ T[2, :3] + T[2, 3]
        if np.isfinite(cost) and (depth > 0.0).all():
            found.append((cost, T, residuals))
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    cost, T, residuals = found[0]
    other = [one for one in found[1:] if np.abs(one[1] - T).max() > 1e-3]
    ambiguous = bool(other) and other[0][0] < _UNAMBIGUOUS**2 * max(cost, 1e-9)
    return BoardPose(T_camera_target=T, residuals_px=residuals, ambiguous=ambiguous)


def _floats(values: object) -> Array:
    return np.asarray(values, dtype=np.float64).ravel()


def _refined(model: CameraModel, points: Array, pixels: Array, T: Array) -> tuple[Array, Array]:
    residuals = pixels - model.project(points @ T[:3, :3].T + T[:3, 3])
    cost = np.sum(residuals**2)
    damping = 1e-6
    for _ in range(_STEPS):
        in_camera = points @ T[:3, :3].T + T[:3, 3]
        by_point = model.project_with_jacobian(in_camera)[1]
        by_pose = np.concatenate([np.broadcast_to(np.eye(3), (len(points), 3, 3)), -T[:3, :3] @ skew(points)], axis=2)
        J = (by_point @ by_pose).reshape(-1, 6)
        normal = J.T @ J
        try:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), J.T @ residuals.ravel())
        except np.linalg.LinAlgError:
            break
        tried = pose(T[:3, :3] @ rotvec_to_matrix(step[3:]), T[:3, 3] + step[:3])
        new = pixels - model.project(points @ tried[:3, :3].T + tried[:3, 3])
        new_cost = np.sum(new**2)
        if not new_cost < cost:
            damping *= 100.0
            if damping > 1e3:
                break
            continue
        settled = cost - new_cost <= 1e-9 * cost
        T, residuals, cost, damping = tried, new, new_cost, damping * 0.1
        if settled:
            break
    return T, residuals

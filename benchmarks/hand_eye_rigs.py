"""Simulated rigs for hand-eye calibration: a camera moves before a board, corners are noisy, poses come from them.

Nothing of a pose's noise is made up: corners of the board are projected, get pixel noise, and the pose is what fits
them best, so that its errors are as uneven and as coupled as those of a real board detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.rotations import crosses, exponentials

Array = NDArray[np.float64]
FOCAL_PX = 610.0


@dataclass(frozen=True, kw_only=True)
class Rig:
    """One geometry.

    Attributes:
        name: of the rig.
        squares: inner corners of the board, across and down.
        square_m: their distance.
        distance_m: from camera to board, least and greatest.
        tilt_rad, roll_rad: how far the camera swings about the board and about its own axis.
        T_mount_camera: (4, 4): T_hand_camera, or T_base_camera where `beside`.
        beside: True for a camera beside the arm with the board on the hand.
        period_s: of the slowest swing.
    """

    name: str
    squares: tuple[int, int] = (9, 6)
    square_m: float = 0.03
    distance_m: tuple[float, float] = (0.35, 0.6)
    tilt_rad: float = 0.5
    roll_rad: float = 0.7
    T_mount_camera: Array
    beside: bool = False
    period_s: float = 6.0

    def corners(self) -> Array:
        """Return the inner corners (k, 3) [m]; the origin is the first one, and not the middle."""
        across, down = self.squares
        x, y = np.meshgrid(np.arange(across), np.arange(down))
        return np.stack([x.ravel(), y.ravel(), 0.0 * x.ravel()], axis=1) * self.square_m


def transform(rotvec_deg: tuple[float, float, float], position_m: tuple[float, float, float]) -> Array:
    """Return a pose (4, 4) from a rotation vector [deg] and a position [m]."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rotvec_deg, degrees=True).as_matrix()
    T[:3, 3] = position_m
    return T


RIGS = (
    Rig(name="wrist", T_mount_camera=transform((5.0, -12.0, 88.0), (0.05, -0.03, 0.08))),
    Rig(
        name="far",
        squares=(7, 5),
        square_m=0.05,
        distance_m=(0.8, 1.2),
        tilt_rad=0.6,
        roll_rad=0.4,
        T_mount_camera=transform((-80.0, 50.0, -48.0), (0.0, -0.015, 0.05)),
    ),
    Rig(
        name="beside",
        beside=True,
        distance_m=(0.5, 0.9),
        square_m=0.035,
        T_mount_camera=transform((-100.0, 20.0, 60.0), (0.9, -0.5, 0.7)),
    ),
    Rig(
        name="little room",
        tilt_rad=0.3,
        roll_rad=0.3,
        distance_m=(0.3, 0.45),
        T_mount_camera=transform((0.0, 30.0, 0.0), (0.08, 0.0, 0.02)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Take:
    """What the two pose files of a rig hold, and the truth.

    Attributes:
        t_robot_s, t_target_s: (n,) and (m,) [s], each on its own clock.
        T_base_hand, T_target_camera: (n, 4, 4) and (m, 4, 4).
        X, Y: T_hand_camera and T_base_target; T_base_camera and T_hand_target where the camera is beside the arm.
        offset_s: what is to be added to the target's times.
        outlier: which of the target's poses are wrong (m,).
    """

    t_robot_s: Array
    t_target_s: Array
    T_base_hand: Array
    T_target_camera: Array
    X: Array
    Y: Array
    offset_s: float
    outlier: NDArray[np.bool_]


def moving(
    rig: Rig,
    rng: np.random.Generator,
    *,
    seconds: float = 30.0,
    robot_hz: float = 100.0,
    camera_hz: float = 30.0,
    offset_s: float = 0.04,
    outliers: float = 0.05,
    noise_px: float = 0.3,
) -> Take:
    """Return a take of continuous motion."""
    swing = _Swing(rig, rng)
    begin_s = 1000.0
    t_robot = begin_s + np.arange(round((seconds + 2.0) * robot_hz)) / robot_hz - 1.0
    t_camera = begin_s + np.arange(round(seconds * camera_hz)) / camera_hz
    t_camera += rng.normal(0.0, 0.0005, len(t_camera))
    return _take(
        rig, rng, swing.at(t_robot), swing.at(t_camera), t_robot, t_camera - offset_s, offset_s, outliers, noise_px
    )


def standing(
    rig: Rig, rng: np.random.Generator, *, poses: int = 20, outliers: float = 0.0, noise_px: float = 0.3
) -> Take:
    """Return a take of still poses, drawn within the swing's range."""
    drawn = rig_poses(rig, rng.uniform(-1.0, 1.0, (poses, 6)))
    t = np.arange(float(poses))
    return _take(rig, rng, drawn, drawn, t, t, 0.0, outliers, noise_px)


def rig_poses(rig: Rig, u: Array) -> Array:
    """Return T_target_camera (n, 4, 4): the camera looks at the board's middle, as `u` (n, 6) in [-1, 1] says."""
    middle = rig.corners().mean(axis=0)
    low, high = rig.distance_m
    distance = 0.5 * (low + high) + 0.5 * (high - low) * u[:, 0]
    # the optical axis points at the board's front, which is -z of the target
    look = np.zeros((len(u), 3))
    look[:, 0], look[:, 1] = rig.tilt_rad * u[:, 1], rig.tilt_rad * u[:, 2]
    spin = np.zeros((len(u), 3))
    spin[:, 2] = rig.roll_rad * u[:, 3]
    R = exponentials(look) @ exponentials(spin)
    aside = 0.08 * distance[:, None] * u[:, 4:6]
    centre_in_camera = np.concatenate([aside, distance[:, None]], axis=1)
    T = np.tile(np.eye(4), (len(u), 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = middle - np.einsum("nij,nj->ni", R, centre_in_camera)
    return T


def inverses(T: Array) -> Array:
    """Return the inverses of transforms (..., 4, 4)."""
    return np.asarray(np.linalg.inv(T), np.float64)


class _Swing:
    """Smooth motion: each of six numbers is a sum of three sines."""

    def __init__(self, rig: Rig, rng: np.random.Generator) -> None:
        self._rig = rig
        self._rate = 2.0 * np.pi / rig.period_s * rng.uniform(0.6, 1.8, (6, 3))
        self._phase = rng.uniform(0.0, 2.0 * np.pi, (6, 3))

    def at(self, t: Array) -> Array:
        u = np.sin(self._rate * t[:, None, None] + self._phase) @ np.array([0.5, 0.3, 0.2])
        return rig_poses(self._rig, u)


def _take(
    rig: Rig,
    rng: np.random.Generator,
    B_robot: Array,
    B_camera: Array,
    t_robot: Array,
    t_target: Array,
    offset_s: float,
    outliers: float,
    noise_px: float,
) -> Take:
    X = rig.T_mount_camera
    if rig.beside:
        Y = transform((170.0, 10.0, 5.0), (0.01, 0.02, 0.1))  # T_hand_target
        A = X @ inverses(B_robot) @ inverses(Y)
    else:
        Y = transform((3.0, 178.0, 8.0), (0.5, -0.1, 0.02))
        A = Y @ B_robot @ inverses(X)
    seen = observed(rig.corners(), B_camera, rng, noise_px)
    wrong = rng.random(len(seen)) < outliers
    count = int(wrong.sum())
    seen[wrong, :3, :3] = seen[wrong, :3, :3] @ exponentials(rng.normal(0.0, 0.3, (count, 3)))
    seen[wrong, :3, 3] += rng.normal(0.0, 0.05, (count, 3))
    return Take(
        t_robot_s=t_robot,
        t_target_s=t_target,
        T_base_hand=A,
        T_target_camera=seen,
        X=X,
        Y=Y,
        offset_s=offset_s,
        outlier=wrong,
    )


def observed(corners: Array, T_target_camera: Array, rng: np.random.Generator, noise_px: float) -> Array:
    """Return T_target_camera (n, 4, 4) as found from noisy corners by Gauss-Newton on the reprojection."""
    T = inverses(T_target_camera)
    R, p = T[:, :3, :3], T[:, :3, 3]
    pixels = _projected(R, p, corners)[0] + rng.normal(0.0, noise_px / FOCAL_PX, (len(T), len(corners), 2))
    for _ in range(4):
        image, in_camera = _projected(R, p, corners)
        z = in_camera[..., 2]
        J = np.zeros((*image.shape, 6))
        J[..., 0, 3] = J[..., 1, 4] = 1.0 / z
        J[..., 3:][..., 2] = -image / z[..., None]
        J[..., :3] = -J[..., 3:] @ crosses(in_camera - p[:, None])
        J, r = J.reshape(len(T), -1, 6), (pixels - image).reshape(len(T), -1, 1)
        step = np.linalg.solve(J.transpose(0, 2, 1) @ J, J.transpose(0, 2, 1) @ r)[:, :, 0]
        R, p = exponentials(step[:, :3]) @ R, p + step[:, 3:]
    found = np.tile(np.eye(4), (len(T), 1, 1))
    found[:, :3, :3], found[:, :3, 3] = R, p
    return inverses(found)


def _projected(R: Array, p: Array, corners: Array) -> tuple[Array, Array]:
    in_camera = corners @ R.transpose(0, 2, 1) + p[:, None]
    return in_camera[..., :2] / in_camera[..., 2:], in_camera


def write_poses(path: Path, t_s: Array, T: Array, *, header: bool = False) -> Path:
    """Write a pose file and return its path."""
    quat = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    lines = [",".join(f"{value:.12g}" for value in row) for row in np.column_stack([t_s, T[:, :3, 3], quat])]
    path.write_text("\n".join((["t,x,y,z,qx,qy,qz,qw"] if header else []) + lines) + "\n")
    return path

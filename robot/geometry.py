"""Rotations and poses: the few operations that a tick needs.

Written out in plain floats: scipy's `Rotation` takes 13 us for a rotation vector to a matrix and 50 us back, this 2 us
each way, and a tick has 600 us for everything. The tests hold both to the same values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = Sequence[Sequence[float]]
Twist = tuple[float, float, float, float, float, float]  # linear [m], then angular [rad]


def pose(R: Array, p: Array) -> Array:
    """Return the homogeneous transform (4, 4) of rotation `R` (3, 3) and position `p` (3,) [m]."""
    T = np.zeros((4, 4))
    T[:3, :3] = R
    T[:3, 3] = p
    T[3, 3] = 1.0
    return T


def inverse_pose(T: Array) -> Array:
    """Return the inverse of the rigid transform `T` (4, 4)."""
    R_inverse = T[:3, :3].T
    return pose(R_inverse, -(R_inverse @ T[:3, 3]))


def rotvec_to_matrix(rotvec: Array) -> Array:
    """Return the rotation matrix (3, 3) of a rotation vector (3,) [rad], of any finite length."""
    x, y, z = rotvec.tolist()
    return rotation_matrix(x, y, z)


def rotation_matrix(x: float, y: float, z: float) -> Array:
    """Return the rotation matrix (3, 3) of the rotation vector (x, y, z) [rad], of any finite length."""
    angle = math.hypot(x, y, z)
    # sin(a)/a and (1 - cos(a))/a^2; the series avoids 0/0, its error is below 1e-17 here
    if angle < 1e-4:
        s, c = 1.0 - angle * angle / 6.0, 0.5 - angle * angle / 24.0
    else:
        half = math.sin(0.5 * angle) / angle
        s, c = math.sin(angle) / angle, 2.0 * half * half
    xx, yy, zz, xy, xz, yz = x * x, y * y, z * z, x * y, x * z, y * z
    # a flat list: numpy takes twice as long for a nested one
    return np.array(
        [
            *(1.0 - c * (yy + zz), c * xy - s * z, c * xz + s * y),
            *(c * xy + s * z, 1.0 - c * (xx + zz), c * yz - s * x),
            *(c * xz - s * y, c * yz + s * x, 1.0 - c * (xx + yy)),
        ]
    ).reshape(3, 3)


def quat_wxyz_to_matrix(quat_wxyz: Sequence[float]) -> Array:
    """Return the rotation matrix (3, 3) of a quaternion, scalar first, of any length but 0."""
    length = math.hypot(*quat_wxyz)
    w, x, y, z = (part / length for part in quat_wxyz)
    return np.array(
        [
            *(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
            *(2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
            *(2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
        ]
    ).reshape(3, 3)


def matrix_to_quat_wxyz(R: Array) -> tuple[float, float, float, float]:
    """Return the unit quaternion of a rotation matrix (3, 3), scalar first, scalar part not negative.

    Shepperd's method: divide by the greatest component only, so that half turns are as exact as small ones.
    """
    return _quat_wxyz(R.tolist())


def _quat_wxyz(rows: Rows) -> tuple[float, float, float, float]:
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = rows
    trace = r00 + r11 + r22
    if trace >= max(r00, r11, r22):
        w, x, y, z = 1.0 + trace, r21 - r12, r02 - r20, r10 - r01
    elif r00 >= r11 and r00 >= r22:
        w, x, y, z = r21 - r12, 1.0 + r00 - r11 - r22, r01 + r10, r02 + r20
    elif r11 >= r22:
        w, x, y, z = r02 - r20, r01 + r10, 1.0 - r00 + r11 - r22, r12 + r21
    else:
        w, x, y, z = r10 - r01, r02 + r20, r12 + r21, 1.0 - r00 - r11 + r22
    scale = math.copysign(1.0 / math.sqrt(w * w + x * x + y * y + z * z), w)
    return w * scale, x * scale, y * scale, z * scale


def matrix_to_rotvec(R: Array) -> Array:
    """Return the rotation vector (3,) [rad], of length 0 to pi, of a rotation matrix (3, 3)."""
    return np.array(_rotvec(R.tolist()))


def _rotvec(rows: Rows) -> tuple[float, float, float]:
    w, x, y, z = _quat_wxyz(rows)
    sine = math.hypot(x, y, z)
    factor = 2.0 if sine < 1e-12 else 2.0 * math.atan2(sine, w) / sine
    return x * factor, y * factor, z * factor


def rotation_angle(R_a: Array, R_b: Array) -> float:
    """Return the angle between two orientations (3, 3), 0 to pi [rad]."""
    w, x, y, z = matrix_to_quat_wxyz(R_a @ R_b.T)
    return 2.0 * math.atan2(math.hypot(x, y, z), w)


def pose_error(T_goal: Array, T: Array) -> Array:
    """Return the twist (6,) that takes pose `T` to `T_goal` in unit time, base frame, linear [m] then angular [rad]."""
    return np.array(twist_between(T.tolist(), T_goal.tolist()))


def twist_between(pose_rows: Rows, goal_rows: Rows) -> Twist:
    """Return what `pose_error` does, for and as plain floats: both are the rows of a pose (4, 4)."""
    (a00, a01, a02, gx), (a10, a11, a12, gy), (a20, a21, a22, gz), _ = goal_rows
    (b00, b01, b02, x), (b10, b11, b12, y), (b20, b21, b22, z), _ = pose_rows
    # R_goal R^T; numpy takes twice as long for it
    rows = (
        (a00 * b00 + a01 * b01 + a02 * b02, a00 * b10 + a01 * b11 + a02 * b12, a00 * b20 + a01 * b21 + a02 * b22),
        (a10 * b00 + a11 * b01 + a12 * b02, a10 * b10 + a11 * b11 + a12 * b12, a10 * b20 + a11 * b21 + a12 * b22),
        (a20 * b00 + a21 * b01 + a22 * b02, a20 * b10 + a21 * b11 + a22 * b12, a20 * b20 + a21 * b21 + a22 * b22),
    )
    rx, ry, rz = _rotvec(rows)
    return gx - x, gy - y, gz - z, rx, ry, rz


def interpolate_pose(T_a: Array, T_b: Array, share: float) -> Array:
    """Return the pose (4, 4) at `share` of the way from `T_a` (0) to `T_b` (1).

    Position moves on a line, orientation about one fixed axis (slerp). A half turn has two ways; which is taken is
    deterministic but arbitrary.
    """
    error = pose_error(T_b, T_a)
    return pose(rotvec_to_matrix(share * error[3:]) @ T_a[:3, :3], T_a[:3, 3] + share * error[:3])


def orthonormalise(R: Array) -> Array:
    """Return the rotation matrix nearest to `R` (3, 3) in the Frobenius norm.

    Raises:
        ValueError: when `R` is so far from a rotation that it has no sensible nearest one.
    """
    u, singular, vt = np.linalg.svd(R)
    if not singular[2] > 0.5 or np.linalg.det(R) <= 0.0:
        raise ValueError(f"not near a rotation matrix: singular values {singular.round(3).tolist()}")
    nearest: Array = u @ vt
    return nearest


def straightened(R: Array) -> Array:
    """Return `R` (3, 3) without the rounding that products of rotations collect; `R` must be a rotation but for that.

    One Newton step to the nearest rotation: an error e becomes e^2. Five times cheaper than `orthonormalise`.
    """
    nearer: Array = 1.5 * R - 0.5 * R.dot(R.T.dot(R))  # `dot` takes half as long as `@`
    return nearer

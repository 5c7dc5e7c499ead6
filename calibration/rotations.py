"""Many rotations at once: (n, 3) rotation vectors and (n, 3, 3) matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def exponentials(rotvec: Array) -> Array:
    """Return the rotation matrices (..., 3, 3) of rotation vectors (..., 3) [rad]."""
    R: Array = Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)
    return R


def logarithms(R: Array) -> Array:
    """Return the rotation vectors (..., 3) [rad], of length 0 to pi, of rotation matrices (..., 3, 3)."""
    rotvec: Array = Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(R.shape[:-1])
    return rotvec


def crosses(v: Array) -> Array:
    """Return the matrices (..., 3, 3) with `crosses(v) @ w = v x w` of vectors (..., 3)."""
    matrix = np.zeros((*v.shape, 3))
    matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return matrix


def inverse_right_jacobians(rotvec: Array) -> Array:
    """Return J (n, 3, 3) with `log(exp(r) exp(d)) = r + J d` to first order in `d`, for rotation vectors r (n, 3).

    Sola, Deray and Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, eq. 144.
    """
    angle = np.linalg.norm(rotvec, axis=-1)
    safe = np.clip(angle, 1e-4, np.pi - 1e-4)
    exact = 1.0 / safe**2 - (1.0 + np.cos(safe)) / (2.0 * safe * np.sin(safe))
    factor = np.where(angle < 1e-4, 1.0 / 12.0, exact)
    K = crosses(rotvec)
    J: Array = np.eye(3) + 0.5 * K + factor[..., None, None] * (K @ K)
    return J


def nearest_rotations(M: Array) -> Array:
    """Return the rotations nearest in the Frobenius norm to matrices (..., 3, 3)."""
    u, _, vt = np.linalg.svd(M)
    flip = np.ones(M.shape[:-1])
    flip[..., 2] = np.sign(np.linalg.det(u @ vt))
    nearest: Array = (u * flip[..., None, :]) @ vt
    return nearest


def mean_rotation(R: Array) -> Array:
    """Return the chordal mean (3, 3) of rotations (n, 3, 3)."""
    return nearest_rotations(R.mean(axis=0))

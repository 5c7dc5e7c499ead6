"""Closed-form solutions of A X = Y B for many poses: seeds for the joint fit, not answers.

A is T_base_hand, X T_hand_camera, Y T_base_target and B T_target_camera, all (n, 4, 4). Three of the four work on
relative motions, A_i^-1 A_j X = X B_i^-1 B_j, and find Y afterwards. They err in different ways, which is why there are
several: one measures noise by the rotation vector, one by its modified Rodrigues vector, one couples translation
to rotation, one needs no motions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calibration.rotations import crosses, logarithms, mean_rotation, nearest_rotations

Array = NDArray[np.float64]
XY = tuple[Array, Array]
_MOTIONS = 400
_LEAST_RAD, _MOST_RAD = 0.05, 2.9  # an axis is noise below, and jumps to its opposite above


def kronecker(A: Array, B: Array) -> XY:
    """Return X and Y from all poses at once.

    Shah, "Solving the robot-world/hand-eye calibration problem using the Kronecker product", 2013: the rotations are
    the leading singular vectors of the sum of R_B (x) R_A, then the translations are a linear problem.

    Args:
        A: (..., n, 4, 4); leading axes are independent problems.
        B: as A.
    """
    R_A, R_B = A[..., :3, :3], B[..., :3, :3]
    lead, n = A.shape[:-3], A.shape[-3]
    K = np.einsum("...nij,...nkl->...ikjl", R_B, R_A).reshape(*lead, 9, 9)
    u, _, vt = np.linalg.svd(K)
    R_X, R_Y = (_scaled(v).swapaxes(-1, -2) for v in (vt[..., 0, :], u[..., :, 0]))
    left = np.concatenate([R_A, np.broadcast_to(-np.eye(3), R_A.shape)], axis=-1).reshape(*lead, 3 * n, 6)
    right = np.einsum("...ij,...nj->...ni", R_Y, B[..., :3, 3]) - A[..., :3, 3]
    # by the normal equations: 6x6 however many poses, and a draw that leaves something open gives the least solution
    normal = left.swapaxes(-1, -2) @ left
    pulled = left.swapaxes(-1, -2) @ right.reshape(*lead, 3 * n, 1)
    t = (np.linalg.pinv(normal, rcond=1e-12, hermitian=True) @ pulled)[..., 0]
    return _poses(R_X, t[..., :3]), _poses(R_Y, t[..., 3:])


def park_martin(A: Array, B: Array) -> XY:
    """Return X by least squares on rotation vectors: Park and Martin, "Robot sensor calibration", 1994."""
    a, b = _motions(A, B)
    alpha, beta = logarithms(a[:, :3, :3]), logarithms(b[:, :3, :3])
    return _with_y(A, B, nearest_rotations(alpha.T @ beta), a, b)


def tsai_lenz(A: Array, B: Array) -> XY:
    """Return X by modified Rodrigues vectors.

    Tsai and Lenz, "A new technique for fully autonomous and efficient 3D robotics hand/eye calibration", 1989.
    """
    a, b = _motions(A, B)
    P_a, P_b = (_sines(logarithms(motion[:, :3, :3])) for motion in (a, b))
    p = np.linalg.lstsq(crosses(P_a + P_b).reshape(-1, 3), (P_b - P_a).ravel(), rcond=None)[0]
    P = 2.0 * p / np.sqrt(1.0 + p @ p)
    R = (1.0 - P @ P / 2.0) * np.eye(3) + 0.5 * (np.outer(P, P) + np.sqrt(max(4.0 - float(P @ P), 0.0)) * crosses(P))
    return _with_y(A, B, nearest_rotations(R), a, b)


def dual_quaternions(A: Array, B: Array) -> XY:
    """Return X from screws: Daniilidis, "Hand-eye calibration using dual quaternions", 1999, eq. 31 to 35."""
    a, b = _motions(A, B)
    (qa, qa_dual), (qb, qb_dual) = _dual(a), _dual(b)
    zero = np.zeros((len(a), 3, 1))
    real = np.concatenate([(qa - qb)[..., None], crosses(qa + qb)], axis=2)
    dual = np.concatenate([(qa_dual - qb_dual)[..., None], crosses(qa_dual + qb_dual)], axis=2)
    S = np.concatenate(
        [np.concatenate([real, zero, np.zeros((len(a), 3, 3))], axis=2), np.concatenate([dual, real], axis=2)], axis=1
    )
    v7, v8 = np.linalg.svd(S.reshape(-1, 8), full_matrices=False)[2][-2:]
    u1, w1, u2, w2 = v7[:4], v7[4:], v8[:4], v8[4:]
    roots = np.roots([u1 @ w1, u1 @ w2 + u2 @ w1, u2 @ w2])
    best = max(roots.real, key=lambda s: s * s * (u1 @ u1) + 2.0 * s * (u1 @ u2) + u2 @ u2, default=0.0)
    q = best * u1 + u2
    w, xyz = q[0] / np.linalg.norm(q), q[1:] / np.linalg.norm(q)
    R = (w * w - xyz @ xyz) * np.eye(3) + 2.0 * np.outer(xyz, xyz) + 2.0 * w * crosses(xyz)
    return _with_y(A, B, nearest_rotations(R), a, b)


METHODS: dict[str, Callable[[Array, Array], XY]] = {
    "Kronecker": kronecker,
    "Park-Martin": park_martin,
    "Tsai-Lenz": tsai_lenz,
    "dual quaternions": dual_quaternions,
}


def _motions(A: Array, B: Array) -> tuple[Array, Array]:
    """Return relative motions (m, 4, 4) of hand and camera, those that turn by useful angles, always the same ones."""
    first, second = np.triu_indices(len(A), 1)
    if len(first) > 20 * _MOTIONS:
        chosen = np.random.default_rng(0).choice(len(first), 20 * _MOTIONS, replace=False)
        first, second = first[chosen], second[chosen]
    cosine = (np.einsum("nij,nij->n", A[first, :3, :3], A[second, :3, :3]) - 1.0) / 2.0
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    useful = np.flatnonzero((angle > _LEAST_RAD) & (angle < _MOST_RAD))
    kept = useful[np.argsort(-angle[useful], kind="stable")[:_MOTIONS]] if len(useful) >= 3 else np.arange(len(angle))
    return (
        np.linalg.inv(A[first[kept]]) @ A[second[kept]],
        np.linalg.inv(B[first[kept]]) @ B[second[kept]],
    )


def _with_y(A: Array, B: Array, R_X: Array, a: Array, b: Array) -> XY:
    """Return X and Y once the rotation of X is known: both translations are linear."""
    left = (a[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (b[:, :3, 3] @ R_X.T - a[:, :3, 3]).ravel()
    X = _poses(R_X, np.asarray(np.linalg.lstsq(left, right, rcond=None)[0], np.float64))
    Y = A @ X @ np.linalg.inv(B)
    return X, _poses(mean_rotation(Y[:, :3, :3]), np.median(Y[:, :3, 3], axis=0))


def _sines(rotvec: Array) -> Array:
    angle = np.linalg.norm(rotvec, axis=1, keepdims=True)
    vector: Array = rotvec * (2.0 * np.sin(angle / 2.0) / np.maximum(angle, 1e-12))
    return vector


def _dual(motion: Array) -> tuple[Array, Array]:
    """Return the vector parts (m, 3) of the real and of the dual quaternion of motions, the scalar not negative."""
    real = _sines(logarithms(motion[:, :3, :3])) / 2.0
    scalar = np.sqrt(np.maximum(1.0 - (real * real).sum(axis=1, keepdims=True), 0.0))
    t = motion[:, :3, 3]
    return real, 0.5 * (scalar * t + np.cross(t, real))


def _scaled(v: Array) -> Array:
    """Return the rotations (..., 3, 3) that singular vectors (..., 9) stand for, up to their scale and sign."""
    M = v.reshape(*v.shape[:-1], 3, 3)
    return nearest_rotations(M * np.sign(np.linalg.det(M))[..., None, None])


def _poses(R: Array, t: Array) -> Array:
    T = np.zeros((*t.shape[:-1], 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T

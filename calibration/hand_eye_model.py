"""What a hand-eye estimate says of each sighting: residuals with their Jacobian, and how wrong the camera's pose is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.pose_track import Motion
from calibration.rotations import crosses, exponentials, inverse_right_jacobians, logarithms
from calibration.sightings import Sightings

Array = NDArray[np.float64]
PARAMETERS = 13


@dataclass(frozen=True, kw_only=True)
class HandEye:
    """The estimate: X and Y (4, 4), as in `Sightings`, and what is added to the sightings' times [s].

    Its 13 parameters are errors at itself: rotation of X [rad], position of X [m], rotation of Y, position of Y,
    offset [s]. Rotations are about the axes of the frame that X or Y maps to: R_true = exp(e) R.
    """

    X: Array
    Y: Array
    offset_s: float = 0.0

    def moved(self, step: Array) -> HandEye:
        """Return the estimate changed by `step` (13,)."""
        X, Y = self.X.copy(), self.Y.copy()
        X[:3, :3], Y[:3, :3] = exponentials(step[:3]) @ X[:3, :3], exponentials(step[6:9]) @ Y[:3, :3]
        X[:3, 3] += step[3:6]
        Y[:3, 3] += step[9:12]
        return HandEye(X=X, Y=Y, offset_s=self.offset_s + float(step[12]))


def residuals(seen: Sightings, estimate: HandEye, centre_m: Array, arm: Motion | None = None) -> Array:
    """Return measured minus predicted T_camera_target (n, 6): rotation [rad], then position of `centre_m` [m].

    Both in camera axes, where the noise of a board's pose is simplest: large along the optical axis and for tilt,
    small across. `centre_m` (3,) is a point of the target; at the board's own centre, which need not be its origin,
    errors of rotation and of position are least coupled.
    """
    arm = arm or seen.arm(estimate.offset_s)
    R_C, towards = _towards(arm, estimate, centre_m)
    rotation = logarithms(seen.R_camera_target @ estimate.Y[:3, :3].T @ R_C)
    measured = seen.R_camera_target @ centre_m + seen.p_camera_target
    return np.concatenate([rotation, measured - np.einsum("nji,nj->ni", R_C, towards)], axis=1)


def jacobian(seen: Sightings, estimate: HandEye, centre_m: Array, rotation: Array, arm: Motion) -> Array:
    """Return the derivative (n, 6, 13) of `residuals`, whose first three columns are `rotation` (n, 3)."""
    R_C, towards = _towards(arm, estimate, centre_m)
    R_C_inverse = R_C.transpose(0, 2, 1)
    to_camera = R_C_inverse @ arm.R  # from mount axes to the camera's
    right = inverse_right_jacobians(rotation)
    lever = R_C_inverse @ crosses(towards)
    R_Y_centre = estimate.Y[:3, :3] @ centre_m
    spin = np.einsum("nij,nj->ni", arm.R, arm.omega)
    velocity = np.einsum("nij,nj->ni", arm.R, np.cross(arm.omega, estimate.X[:3, 3])) + arm.v

    J = np.zeros((len(seen), 6, PARAMETERS))
    J[:, :3, 0:3] = right @ to_camera
    J[:, :3, 6:9] = -right @ R_C_inverse
    J[:, :3, 12] = np.einsum("nij,njk,nk->ni", right, R_C_inverse, spin)
    J[:, 3:, 0:3] = -lever @ arm.R
    J[:, 3:, 3:6] = to_camera
    J[:, 3:, 6:9] = R_C_inverse @ crosses(R_Y_centre)
    J[:, 3:, 9:12] = -R_C_inverse
    J[:, 3:, 12] = np.einsum("nij,nj->ni", R_C_inverse, velocity) - np.einsum("nij,nj->ni", lever, spin)
    return J


def camera_errors(seen: Sightings, estimate: HandEye) -> tuple[Array, Array]:
    """Return how far the camera is from where its sighting puts it: (n,) [m] and (n,) [rad].

    The way by the arm, T_base_hand X, against the way by the target, Y T_target_camera.
    """
    arm = seen.arm(estimate.offset_s)
    R_C, p_C = arm.R @ estimate.X[:3, :3], arm.R @ estimate.X[:3, 3] + arm.p
    B = seen.T_target_camera()
    by_target = B[:, :3, 3] @ estimate.Y[:3, :3].T + estimate.Y[:3, 3]
    relative = R_C.transpose(0, 2, 1) @ (estimate.Y[:3, :3] @ B[:, :3, :3])
    return np.linalg.norm(p_C - by_target, axis=1), np.linalg.norm(logarithms(relative), axis=1)


def _towards(arm: Motion, estimate: HandEye, centre_m: Array) -> tuple[Array, Array]:
    """Return the camera's orientation (n, 3, 3) in the world and the way (n, 3) from it to the target's centre."""
    R_C = arm.R @ estimate.X[:3, :3]
    p_C = arm.R @ estimate.X[:3, 3] + arm.p
    return R_C, estimate.Y[:3, :3] @ centre_m + estimate.Y[:3, 3] - p_C

"""Where the TCP is for given joints, and which joints put it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from robot.geometry import pose_error

Array = NDArray[np.float64]

# A solution is good within this of the wanted pose; a solve stops early well below it.
POSITION_TOLERANCE_M = 0.2e-3
ROTATION_TOLERANCE_RAD = math.radians(0.1)
STOP_ERROR = 1e-6  # [m, rad]
MAX_ITERATIONS = 20
CHORD_SHARE = 0.1  # of the error before; while a step leaves no more, its Jacobian serves again
MAX_JOINT_STEP_RAD = 0.4  # per iteration; beyond it the linearisation says nothing
DAMPING = 1e-6
DAMPING_PER_SQUARED_ERROR = 0.5
# The pull to the rest posture moves joints by at most this share of what the task itself moves them, so that a
# still target keeps still joints and the pull does not depend on the tick rate.
REST_PULL = 0.05
REST_SHARE = 0.5

_IDENTITY = np.eye(6)


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """The arm maker's limits, shape (N,) each.

    Attributes:
        q_min_rad: least joint positions [rad].
        q_max_rad: greatest joint positions [rad].
        dq_max_rad_s: greatest joint speeds [rad/s].
    """

    q_min_rad: Array
    q_max_rad: Array
    dq_max_rad_s: Array


class Kinematics(Protocol):
    """Forward and inverse kinematics of one arm with its tool. Implementations are pure and never block."""

    @property
    def joint_limits(self) -> JointLimits:
        """Limits of the joints."""
        ...

    def forward(self, q_rad: Array) -> Array:
        """Return `T_base_tcp` (4, 4) [m] for joints (N,) [rad]."""
        ...

    def jacobian(self, q_rad: Array) -> Array:
        """Return the geometric Jacobian (6, N) of the TCP in the base frame, linear rows first."""
        ...

    def solve(self, T_base_tcp: Array, q_start_rad: Array) -> Array | None:
        """Return joints (N,) near `q_start_rad` that reach the pose within 0.2 mm and 0.1 degrees, or None.

        The same input gives the same bits. Joint limits are not looked at: the safety filter judges them.
        """
        ...


def solve_damped(kinematics: Kinematics, T_base_tcp: Array, q_start_rad: Array, q_rest_rad: Array) -> Array | None:
    """Return joints (N,) for a pose by damped least squares, or None when it does not converge.

    Levenberg-Marquardt with damping by the squared error (Sugihara, "Solvability-unconcerned inverse kinematics by the
    Levenberg-Marquardt method", IEEE T-RO 2011): no line search, few and equal iterations, sane at singularities.
    A Jacobian serves as long as each step with it takes most of the error away (the chord method), which for the small
    moves of a tick it does to the end. The first iteration also pulls the free joints to `q_rest_rad`, in the task's
    null space.
    """
    if not math.isfinite(sum(T_base_tcp.ravel().tolist()) + sum(q_start_rad.tolist())):
        return None
    q_rad = q_start_rad
    J = factor = None
    enough = math.inf  # error up to which the factor at hand goes on serving [m, rad]
    for _ in range(MAX_ITERATIONS):
        error = pose_error(T_base_tcp, kinematics.forward(q_rad))
        x, y, z, rx, ry, rz = error.tolist()
        position_m, rotation_rad = math.hypot(x, y, z), math.hypot(rx, ry, rz)
        if position_m < STOP_ERROR and rotation_rad < STOP_ERROR:
            return q_rad
        greatest = max(position_m, rotation_rad)
        first = J is None
        if J is None or greatest > enough:
            J = kinematics.jacobian(q_rad)
            damping = DAMPING + DAMPING_PER_SQUARED_ERROR * (position_m**2 + rotation_rad**2)
            # LAPACK itself: the call of np.linalg takes four times as long
            factor, failed = dpotrf(J @ J.T + damping * _IDENTITY)
            if failed:
                return None
        enough = CHORD_SHARE * greatest
        step = J.T @ dpotrs(factor, error)[0]
        if first:
            pull = REST_PULL * (q_rest_rad - q_rad)
            free = pull - J.T @ dpotrs(factor, J @ pull)[0]
            task_rad, free_rad = math.hypot(*step.tolist()), math.hypot(*free.tolist())
            if free_rad > 0.0:
                step += free * min(1.0, REST_SHARE * task_rad / free_rad)
        greatest_rad = max(map(abs, step.tolist()))
        if greatest_rad > MAX_JOINT_STEP_RAD:
            step *= MAX_JOINT_STEP_RAD / greatest_rad
        q_rad = q_rad + step
    error = pose_error(T_base_tcp, kinematics.forward(q_rad))
    near = math.hypot(*error[:3].tolist()) < POSITION_TOLERANCE_M
    return q_rad if near and math.hypot(*error[3:].tolist()) < ROTATION_TOLERANCE_RAD else None

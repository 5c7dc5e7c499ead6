"""Where the TCP is for given joints, and which joints put it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from robot.geometry import Twist, twist_between

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
    goal = T_base_tcp.tolist()
    if not math.isfinite(sum(map(sum, goal)) + sum(q_start_rad.tolist())):
        return None
    q_rad = q_start_rad
    J = factor = None
    enough = math.inf  # error up to which the factor at hand goes on serving [m, rad]
    for _ in range(MAX_ITERATIONS):
        error = twist_between(kinematics.forward(q_rad).tolist(), goal)
        position_m, rotation_rad = _lengths(error)
        if position_m < STOP_ERROR and rotation_rad < STOP_ERROR:
            return q_rad
        greatest = max(position_m, rotation_rad)
        first = J is None
        if J is None or greatest > enough:
            J = kinematics.jacobian(q_rad)
            damping = DAMPING + DAMPING_PER_SQUARED_ERROR * (position_m**2 + rotation_rad**2)
            # LAPACK itself: the call of np.linalg takes four times as long; and `dot` half as long as `@`
            factor, failed = dpotrf(J.dot(J.T) + damping * _IDENTITY)
            if failed:
                return None
        enough = CHORD_SHARE * greatest
        # lists from here: for so few joints plain floats are faster than numpy's calls
        step: list[float] = J.T.dot(dpotrs(factor, np.array(error))[0]).tolist()
        if first:
            pull = REST_PULL * (q_rest_rad - q_rad)
            free: list[float] = (pull - J.T.dot(dpotrs(factor, J.dot(pull))[0])).tolist()
            free_rad = math.hypot(*free)
            if free_rad > 0.0:
                share = min(1.0, REST_SHARE * math.hypot(*step) / free_rad)
                step = [task + share * pulled for task, pulled in zip(step, free, strict=True)]
        greatest_rad = max(map(abs, step))
        if greatest_rad > MAX_JOINT_STEP_RAD:
            step = [joint * (MAX_JOINT_STEP_RAD / greatest_rad) for joint in step]
        q_rad = np.array([joint + move for joint, move in zip(q_rad.tolist(), step, strict=True)])
    position_m, rotation_rad = _lengths(twist_between(kinematics.forward(q_rad).tolist(), goal))
    return q_rad if position_m < POSITION_TOLERANCE_M and rotation_rad < ROTATION_TOLERANCE_RAD else None


def _lengths(error: Twist) -> tuple[float, float]:
    """Return how long the two halves of a twist are [m, rad]."""
    x, y, z, rx, ry, rz = error
    return math.hypot(x, y, z), math.hypot(rx, ry, rz)

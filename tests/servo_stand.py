"""One servo on a stand: its arm follows at once or is stuck, and all its set-points are kept."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from robot.fr3 import HOME_Q_RAD
from robot.joint_path import MotionLimits, PathPlanner
from robot.joint_stream import Reading, SetPoint
from robot.servo import JointTarget, Servo, ServoLimits
from robot.servo_config import motion_limits
from tests.filter_bench import arm_state
from tests.servo_bench import SERVO

Array = NDArray[np.float64]
LOOP_S = 0.05
STEP_S = 0.004
DELAY_S = 0.5 * LOOP_S
WATCHDOG_S = 0.12
TRACKING_RAD = 0.2
STATE_AGE_S = 0.02
LIMITS: MotionLimits = motion_limits(SERVO)
HOME = np.array(HOME_Q_RAD)
# ruckig works to 1e-8; differences over 4 ms of doubles of some radians add 1e-13 / dt^2 and / dt^3
ROUNDING = 1.0 + 1e-6


def reading(q_rad: Array, measured_s: float, **changes: object) -> Reading:
    """An arm that is where its set-point is."""
    arm = arm_state(q_rad=q_rad, measured_s=measured_s)
    at = Reading(arm=arm, following=True, q_set_rad=tuple(q_rad.tolist()), gripper_set_m=0.04, clears=0)
    return dataclasses.replace(at, **changes)  # type: ignore[arg-type]


class Stand:
    """A servo whose arm follows at once, or stays where `stuck` says; all set-points are kept."""

    def __init__(self, start_s: float = 100.0, step_s: float = STEP_S) -> None:
        self.now_s, self.step_s = start_s, step_s
        limits = ServoLimits(
            loop_period_s=LOOP_S,
            delay_s=DELAY_S,
            watchdog_s=WATCHDOG_S,
            max_state_age_s=STATE_AGE_S,
            max_tracking_rad=TRACKING_RAD,
        )
        self.servo = Servo(PathPlanner(LIMITS), limits, reading(HOME, start_s), start_s)
        self.points: list[SetPoint] = []
        self.stuck: Array | None = None
        self.changes: dict[str, object] = {}
        self.state_age_s = 0.0
        self.step()

    @property
    def q(self) -> Array:
        return np.array(self.points[-1].q_rad) if self.points else HOME

    def step(self) -> None:
        at = self.q if self.stuck is None else self.stuck
        self.points.append(self.servo.step(self.now_s, reading(at, self.now_s - self.state_age_s, **self.changes)))
        self.now_s += self.step_s

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.step_s)):
            self.step()

    def target(self, q_rad: Array, due_s: float | None = None, sent_s: float | None = None) -> bool:
        """Send a target, by default one that is sent now for one period later."""
        return self.servo.target(
            JointTarget(
                q_rad=tuple(q_rad.tolist()),
                gripper_width_m=0.03,
                due_s=self.now_s + LOOP_S if due_s is None else due_s,
                sent_s=self.now_s if sent_s is None else sent_s,
            ),
            self.now_s,
        )

    def cruise(self, ticks: int = 12, step_rad: float = 0.02) -> Array:
        """Move joints 1 and 4 on at a steady speed; returns the last target."""
        q = self.q.copy()
        for _ in range(ticks):
            q = q + np.array([step_rad, 0.0, 0.0, step_rad, 0.0, 0.0, 0.0])
            assert self.target(q)
            self.run(0.048)
        return q

    def check(self) -> None:
        """Velocity, acceleration and jerk, differentiated from the positions, are in their limits."""
        self.check_from(0)

    def check_from(self, first: int) -> None:
        """The same for the points from one on, for a stream that began anew where the controller stood."""
        q = np.array([point.q_rad for point in self.points[first:]])
        dq = np.diff(q, axis=0) / self.step_s
        ddq = np.diff(dq, axis=0) / self.step_s
        dddq = np.diff(ddq, axis=0) / self.step_s
        for values, most, slack in (
            (dq, LIMITS.dq_rad_s, 1e-9),
            (ddq, LIMITS.ddq_rad_s2, 1e-6),
            (dddq, LIMITS.dddq_rad_s3, 1e-2),
        ):
            assert (np.abs(values).max(axis=0) <= np.array(most) * ROUNDING + slack).all()

    def reach(self) -> tuple[Array, Array]:
        """Least and greatest position of each joint."""
        q = np.array([point.q_rad for point in self.points])
        return q.min(axis=0), q.max(axis=0)


def braking(speed: float) -> Array:
    return np.array([LIMITS.braking_rad(joint, speed) for joint in range(7)])

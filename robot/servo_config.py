"""The servo's section of a station file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from robot import fr3
from robot.joint_path import MotionLimits
from robot.strict import Strict

Share = Annotated[float, Field(gt=0.0, le=1.0)]

# A setpoint older than so many periods of the loop is no wish any more, whatever the station allows.
SETPOINT_PERIODS = 2.5


class ServoConfig(Strict):
    """How an arm that needs a stream is led; used in real time only. What safety rests on has no default.

    Attributes:
        rate_hz: set-points per second [Hz].
        delay_s: how long after its due time a target is reached, so that the next one is normally there before; half a
            period of the loop where left out [s].
        watchdog_s: age of the newest target at which the servo holds, if 2.5 periods of the loop are not less [s].
        max_state_age_s: age of the arm's state at which the servo stops and latches; 20 ms are two to twenty states of
            common arms [s].
        velocity_share: share of the arm's joint speeds that set-points may use.
        acceleration_share: share of its joint accelerations; braking has no more, either.
        jerk_share: share of its jerks.
        max_tracking_rad: how far a joint may be from its set-point. Beyond it the set-point brakes, at twice as far the
            arm is stopped. It bounds how hard a blocked arm pushes and how far it springs once it is free, and must
            exceed the arm's lag at full speed [rad].
        arm_age_s: age of the newest arm state at which the loop gives up on it [s].
    """

    rate_hz: Annotated[float, Field(ge=200.0, le=500.0)] = 250.0
    delay_s: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    watchdog_s: Annotated[float, Field(ge=0.02, le=1.0)]
    max_state_age_s: Annotated[float, Field(ge=0.005, le=0.2)]
    velocity_share: Share
    acceleration_share: Share
    jerk_share: Share
    max_tracking_rad: Annotated[float, Field(ge=0.005, le=1.0)]
    arm_age_s: Annotated[float, Field(ge=0.02, le=1.0)] = 0.1

    @model_validator(mode="after")
    def _brakes_in_time(self) -> Self:
        limits = motion_limits(self)
        for i, (v, a, j) in enumerate(zip(limits.dq_rad_s, limits.ddq_rad_s2, limits.dddq_rad_s3, strict=True)):
            if 0.5 * a * a / j > 0.5 * v:
                raise ValueError(
                    f"jerk_share is {self.jerk_share:g}: taking back the acceleration of joint {i + 1} adds "
                    f"{0.5 * a * a / j:.3g} rad/s, at most half of its {v:.3g} rad/s are allowed; raise jerk_share"
                )
        return self

    def delay_for_s(self, loop_period_s: float) -> float:
        """Return the delay in force for a loop [s]."""
        return 0.5 * loop_period_s if self.delay_s is None else self.delay_s

    def watchdog_for_s(self, loop_period_s: float) -> float:
        """Return the age of the newest target at which the servo holds [s]."""
        return min(self.watchdog_s, SETPOINT_PERIODS * loop_period_s)


def motion_limits(config: ServoConfig) -> MotionLimits:
    """Return the station's shares of the FR3's limits."""
    return MotionLimits(
        q_min_rad=fr3.Q_MIN_RAD,
        q_max_rad=fr3.Q_MAX_RAD,
        dq_rad_s=tuple(config.velocity_share * most for most in fr3.DQ_MAX_RAD_S),
        ddq_rad_s2=tuple(config.acceleration_share * most for most in fr3.DDQ_MAX_RAD_S2),
        dddq_rad_s3=tuple(config.jerk_share * most for most in fr3.DDDQ_MAX_RAD_S3),
    )

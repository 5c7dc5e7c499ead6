"""The thresholds of the safety filter, as a person writes them in a station file."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from robot.strict import Strict

# Longer braking is no braking, and rehearsing it for the joints takes its time in ticks.
MAX_STOPPING_S = 1.0

Coordinate = Annotated[float, Field(ge=-5.0, le=5.0)]
Corner = tuple[Coordinate, Coordinate, Coordinate]


class SafetyLimits(Strict):
    """What the arm may never do. No field has a default: whoever writes a station has thought about each.

    Ranges are wide enough for any table-top arm and narrow enough to catch a wrong unit (mm, degrees).

    Attributes:
        workspace_min_m: least x, y, z that the TCP may be sent to, base frame [m].
        workspace_max_m: greatest x, y, z [m].
        max_speed_m_s: greatest speed of the commanded TCP [m/s].
        max_rotation_speed_rad_s: greatest rotation speed of the commanded TCP [rad/s].
        max_acceleration_m_s2: greatest change of the commanded velocity, braking included [m/s^2]. It sets the stopping
            distance, and so how early the filter brakes before a wall.
        max_angular_acceleration_rad_s2: the same for rotation [rad/s^2].
        max_tracking_m: greatest distance of the target from the measured TCP [m]: how far a blocked arm winds up.
            Must exceed the arm's lag plus the stopping distance at full speed, or the arm never gets to full speed.
        max_tracking_rad: the same for orientation [rad].
        max_tilt_rad: greatest angle between the tool's z axis and that of the home orientation [rad].
        joint_margin_rad: how far joints stay from the arm's own position limits [rad].
        max_joint_speed_share: share of the arm's own joint speed limits that may be used, over 0 to 1.
        max_force_n: external force at the TCP beyond which the arm stops and latches [N].
        gripper_min_m: least distance between the fingers [m].
        gripper_max_m: greatest distance between the fingers [m].
    """

    workspace_min_m: Corner
    workspace_max_m: Corner
    max_speed_m_s: Annotated[float, Field(ge=1e-3, le=3.0)]
    max_rotation_speed_rad_s: Annotated[float, Field(ge=1e-3, le=2.0 * math.pi)]
    max_acceleration_m_s2: Annotated[float, Field(ge=1e-2, le=50.0)]
    max_angular_acceleration_rad_s2: Annotated[float, Field(ge=1e-2, le=200.0)]
    max_tracking_m: Annotated[float, Field(ge=1e-3, le=0.5)]
    max_tracking_rad: Annotated[float, Field(ge=1e-2, le=math.pi / 2)]
    max_tilt_rad: Annotated[float, Field(ge=0.0, le=math.pi)]
    joint_margin_rad: Annotated[float, Field(ge=0.0, le=0.5)]
    max_joint_speed_share: Annotated[float, Field(gt=0.0, le=1.0)]
    max_force_n: Annotated[float, Field(ge=1.0, le=500.0)]
    gripper_min_m: Annotated[float, Field(ge=0.0, le=0.5)]
    gripper_max_m: Annotated[float, Field(ge=0.0, le=0.5)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for axis, least, greatest in zip("xyz", self.workspace_min_m, self.workspace_max_m, strict=True):
            if not least < greatest:
                raise ValueError(
                    f"workspace_min_m must be below workspace_max_m on every axis; {axis} is {least} to {greatest} m"
                )
        if not self.gripper_min_m < self.gripper_max_m:
            raise ValueError(
                f"gripper_min_m must be below gripper_max_m; they are {self.gripper_min_m} and {self.gripper_max_m} m"
            )
        for what, speed, braking in (
            ("max_speed_m_s / max_acceleration_m_s2", self.max_speed_m_s, self.max_acceleration_m_s2),
            (
                "max_rotation_speed_rad_s / max_angular_acceleration_rad_s2",
                self.max_rotation_speed_rad_s,
                self.max_angular_acceleration_rad_s2,
            ),
        ):
            if speed > braking * MAX_STOPPING_S:
                raise ValueError(
                    f"{what}: stopping from full speed takes {speed / braking:.3g} s, at most {MAX_STOPPING_S:g} s are "
                    "allowed; raise the acceleration or lower the speed"
                )
        return self

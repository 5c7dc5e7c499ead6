"""Settings of the person's devices, apart from the devices so that reading a station does not start pygame."""

from __future__ import annotations

import math

from pydantic import Field

from robot.strict import Strict


class GamepadConfig(Strict):
    """How the person's pad feels.

    Attributes:
        pad: part of the pad's name, or its SDL GUID; left out, the first pad is taken.
        dead_zone: radius in which a stick rests, share of its travel.
        exponent: curve of the sticks; 1 is linear, more is finer near the centre.
        view_yaw_rad: direction in which the person looks, as a rotation about base z; 0 looks along +x [rad].
        speed_share: share of full speed at full deflection.
    """

    pad: str | None = None
    dead_zone: float = Field(default=0.12, ge=0.0, le=0.5)
    exponent: float = Field(default=1.8, ge=1.0, le=4.0)
    view_yaw_rad: float = Field(default=0.0, ge=-math.pi, le=math.pi)
    speed_share: float = Field(default=1.0, gt=0.0, le=1.0)


class KeyboardConfig(Strict):
    """How the keys drive.

    Attributes:
        view_yaw_rad: direction in which the person looks, as a rotation about base z; 0 looks along +x [rad].
        speed_share: share of full speed while a key is down; keys know no half speed, so the default is careful.
    """

    view_yaw_rad: float = Field(default=0.0, ge=-math.pi, le=math.pi)
    speed_share: float = Field(default=0.5, gt=0.0, le=1.0)

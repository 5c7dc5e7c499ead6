"""The camera and synchroniser sections of a station file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robot.strict import Strict

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]


class Bump(Strict):
    """How far a simulated camera really is from where its calibration says, in the camera's own frame."""

    translation_m: Vector = (0.0, 0.0, 0.0)
    rotation_deg: Vector = (0.0, 0.0, 0.0)


class SimulatedCameraConfig(Strict):
    """A ray-cast RGB-D camera of the simulated station.

    `eye_m` and `target_m` say where it stands and what it looks at, in the frame of `mount`: the base, or the
    TCP for a camera on the wrist. `bump` is what nobody told the calibration.
    """

    kind: Literal["simulated"]
    name: Name
    mount: Literal["base", "tcp"]
    eye_m: Vector
    target_m: Vector
    up: Vector
    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]
    vertical_fov_deg: Annotated[float, Field(gt=1.0, lt=150.0)]
    rate_hz: Annotated[float, Field(ge=1.0, le=200.0)]
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    jitter_s: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    bump: Bump = Bump()


class RecordedCameraConfig(Strict):
    """A camera that plays one view of a recording."""

    kind: Literal["recorded"]
    name: Name
    view: str
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


CameraConfig = Annotated[SimulatedCameraConfig | RecordedCameraConfig, Field(discriminator="kind")]


class SynchroniserConfig(Strict):
    """When an observation may be trusted; periods are those of each camera's own frame rate."""

    max_skew_s: Annotated[float, Field(gt=0.0, le=1.0)]
    max_age_s: Annotated[float, Field(gt=0.0, le=2.0)]
    max_repeats: Annotated[int, Field(ge=0, le=100)]

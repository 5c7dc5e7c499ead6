"""The camera and synchroniser sections of a station file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robot.strict import Strict

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]


class Bump(Strict):
    """How far a simulated camera really is from where its calibration says, in the camera's own frame."""

    translation_m: Vector = (0.0, 0.0, 0.0)
    rotation_deg: Vector = (0.0, 0.0, 0.0)


class ImageSize(Strict):
    """Size of the images that the policy is given [px]."""

    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]


class LiveCameraConfig(Strict):
    """What every camera has that takes pictures now, as opposed to playing recorded ones.

    `height` and `width` are the device's own. `image` is what the policy gets of it, cut to its aspect ratio about the
    middle and averaged down; left out, the pictures as they are. `latency_s` is the calibrated delay from capture to
    arrival and `latency_uncertainty_s` its standard deviation; with a device clock the latter is measured instead.
    A device that gives nothing usable for `reconnect_s` is opened anew. `stream` says how its full-size pictures are
    recorded beside the policy's images, `depth_stream` whether its depth is.
    """

    name: Name
    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]
    rate_hz: Annotated[float, Field(ge=1.0, le=200.0)]
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    latency_uncertainty_s: Annotated[float, Field(ge=0.0, le=0.1)] = 0.005
    reconnect_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    image: ImageSize | None = None
    stream: Literal["none", "jpeg", "lossless"] = "none"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    depth_stream: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that the policy gets [px]."""
        return (self.image.height, self.image.width) if self.image else (self.height, self.width)

    @model_validator(mode="after")
    def _image_fits(self) -> Self:
        height, width = self.image_size
        if height > self.height or width > self.width:
            raise ValueError(
                f"camera {self.name!r}: image is {height}x{width}, more than the camera's {self.height}x{self.width};"
                " make it smaller"
            )
        return self


class SimulatedCameraConfig(LiveCameraConfig):
    """A ray-cast RGB-D camera of the simulated station.

    `eye_m` and `target_m` say where it stands and what it looks at, in the frame of `mount`: the base, or the
    TCP for a camera on the wrist. `bump` is what nobody told the calibration.
    """

    kind: Literal["simulated"]
    mount: Literal["base", "tcp"]
    eye_m: Vector
    target_m: Vector
    up: Vector
    vertical_fov_deg: Annotated[float, Field(gt=1.0, lt=150.0)]
    jitter_s: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    bump: Bump = Bump()


class PatternCameraConfig(LiveCameraConfig):
    """A camera that shows a checksummed moving pattern, so that transport can be measured and proven without a scene.

    Its clock runs `drift_ppm` faster than the host's; its pictures are taken `phase_s` after the whole periods and
    arrive `latency_s` and up to `jitter_s` later, but for a share of `drop_rate`. It has no depth.
    """

    kind: Literal["pattern"]
    jitter_s: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    drift_ppm: Annotated[float, Field(ge=-1000.0, le=1000.0)] = 0.0
    phase_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    depth_stream: Literal[False] = False


class EnvironmentCameraConfig(Strict):
    """What a Gymnasium environment renders, cut and averaged down to `height` and `width`; it has one such view."""

    kind: Literal["gymnasium"]
    name: Name
    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]


class RecordedCameraConfig(Strict):
    """A camera that plays one view of a recording."""

    kind: Literal["recorded"]
    name: Name
    view: str
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


CameraConfig = Annotated[
    SimulatedCameraConfig | PatternCameraConfig | RecordedCameraConfig | EnvironmentCameraConfig,
    Field(discriminator="kind"),
]


class SynchroniserConfig(Strict):
    """Which frames make an observation, and when it may be trusted.

    Of the last `history` frames of each camera, `latest_common` takes the set with the least skew + `age_weight` * age
    among those that are at most `max_extra_age_s` (left out: `max_age_s`) older than the newest possible one. `nearest`
    takes of each camera what is nearest to the newest frame of the one that is furthest behind. With
    `proprio_time = "frames"` the proprioception is that of the moment in the middle of the frames, as policies trained
    on latency-corrected data (UMI) expect it; with "tick" that of the tick's start.
    """

    max_skew_s: Annotated[float, Field(gt=0.0, le=1.0)]
    max_age_s: Annotated[float, Field(gt=0.0, le=2.0)]
    max_repeats: Annotated[int, Field(ge=0, le=100)]
    policy: Literal["latest_common", "nearest"] = "latest_common"
    history: Annotated[int, Field(ge=1, le=32)] = 8
    age_weight: Annotated[float, Field(ge=0.0, le=100.0)] = 0.07
    max_extra_age_s: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    proprio_time: Literal["frames", "tick"] = "tick"

    @property
    def extra_age_s(self) -> float:
        """Age that less skew may cost [s]."""
        return self.max_age_s if self.max_extra_age_s is None else self.max_extra_age_s

"""The camera and synchroniser sections of a station file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from robot.strict import Strict

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Crop = tuple[Share, Share, Share, Share]  # left, top, right and bottom edge as shares of width and height
Colour = Literal["rgb", "bgr"]
_ROUNDING_PX = 1e-6


def check_crop(crop: Crop) -> Crop:
    """Refuse a window without an area, with ValueError."""
    left, top, right, bottom = crop
    if not (left < right and top < bottom):
        raise ValueError(f"crop is {crop}; it is left, top, right, bottom, so that left < right and top < bottom")
    return crop


class Bump(Strict):
    """How far a simulated camera really is from where its calibration says, in the camera's own frame.

    Attributes:
        translation_m: along x, y and z [m].
        rotation_deg: an axis times an angle [degrees].
    """

    translation_m: Vector = (0.0, 0.0, 0.0)
    rotation_deg: Vector = (0.0, 0.0, 0.0)


class ImageSize(Strict):
    """Size of the images that the policy is given.

    Attributes:
        height: rows [px].
        width: columns [px].
    """

    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]


class LiveCameraConfig(Strict):
    """What every camera has that takes pictures now, as opposed to playing recorded ones.

    Attributes:
        name: of the camera, in files and messages and for the bundle.
        height: of the device's own pictures [px].
        width: of the device's own pictures [px].
        rate_hz: pictures per second.
        latency_s: calibrated delay from capture to arrival [s].
        latency_uncertainty_s: its standard deviation; with a device clock it is measured instead [s].
        reconnect_s: a device that gives nothing usable for so long is opened anew [s].
        image: size of what the policy gets, averaged down from the window. Left out, window and size are as the bundle
            wants them; without a bundle that says, the pictures as they are.
        crop: the window: left, top, right, bottom as shares of the picture. Left out, the largest one about the middle
            of the aspect ratio of `image`.
        stream: how its full-size pictures are recorded beside the policy's images.
        jpeg_quality: of `stream = "jpeg"`.
        depth_stream: its depth is recorded.
    """

    name: Name
    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]
    rate_hz: Annotated[float, Field(ge=1.0, le=200.0)]
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    latency_uncertainty_s: Annotated[float, Field(ge=0.0, le=0.1)] = 0.005
    reconnect_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    image: ImageSize | None = None
    crop: Annotated[Crop, AfterValidator(check_crop)] | None = None
    stream: Literal["none", "jpeg", "lossless"] = "none"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    depth_stream: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that the policy gets [px]."""
        if self.image:
            return self.image.height, self.image.width
        left, top, right, bottom = self.crop or (0.0, 0.0, 1.0, 1.0)
        return max(1, int((bottom - top) * self.height)), max(1, int((right - left) * self.width))

    @model_validator(mode="after")
    def _image_fits(self) -> Self:
        height, width = self.image_size
        left, top, right, bottom = self.crop or (0.0, 0.0, 1.0, 1.0)
        most_height, most_width = (bottom - top) * self.height, (right - left) * self.width
        if height > most_height + _ROUNDING_PX or width > most_width + _ROUNDING_PX:
            cut = "" if self.crop is None else f", cut to {most_height:g}x{most_width:g}"
            raise ValueError(
                f"camera {self.name!r}: image is {height}x{width}, more than the camera's {self.height}x{self.width}"
                f"{cut}; make it smaller"
            )
        return self


class SimulatedCameraConfig(LiveCameraConfig):
    """A ray-cast RGB-D camera of the simulated station.

    Attributes:
        mount: what it is fixed to, and the frame of what follows: the base, or the TCP for a camera on the wrist.
        eye_m: where it stands [m].
        target_m: what it looks at [m].
        up: direction that is up in its pictures; only the part across the view counts.
        vertical_fov_deg: angle from the top of a picture to its bottom [degrees].
        jitter_s: a picture arrives up to so much later than `latency_s` [s].
        drop_rate: share of the pictures that never arrive.
        bump: what nobody told the calibration.
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

    Attributes:
        jitter_s: a picture arrives up to so much later than `latency_s` [s].
        drop_rate: share of the pictures that never arrive.
        drift_ppm: how much faster its clock runs than the host's [ppm].
        phase_s: how long after the whole periods its pictures are taken [s].
        depth_stream: it has no depth.
    """

    kind: Literal["pattern"]
    jitter_s: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    drift_ppm: Annotated[float, Field(ge=-1000.0, le=1000.0)] = 0.0
    phase_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    depth_stream: Literal[False] = False


class PinnedCameraConfig(LiveCameraConfig):
    """What a real camera has set, so that a policy sees pictures like those it was trained on.

    Exposure and gain are pinned together, or `auto_exposure` leaves them to the device.

    Attributes:
        auto_exposure: the device may change exposure and gain, and with them how bright, blurred and delayed its
            pictures are.
        exposure_us: required unless `auto_exposure` [us].
        gain: in the device's own scale; required unless `auto_exposure`.
        white_balance_k: left out, it is the device's to choose [K].
    """

    auto_exposure: bool = False
    exposure_us: Annotated[float, Field(ge=1.0, le=1e6)] | None = None
    gain: Annotated[float, Field(ge=0.0, le=1e4)] | None = None
    white_balance_k: Annotated[float, Field(ge=1000.0, le=20000.0)] | None = None

    @model_validator(mode="after")
    def _exposure_is_decided(self) -> Self:
        pinned = self.exposure_us is not None, self.gain is not None
        if self.auto_exposure and any(pinned):
            raise ValueError(f"camera {self.name!r}: exposure_us or gain beside auto_exposure; leave one of them out")
        if not self.auto_exposure and not all(pinned):
            raise ValueError(
                f"camera {self.name!r}: exposure is not pinned; give exposure_us and gain, or say auto_exposure = true"
            )
        return self


class RealSenseCameraConfig(PinnedCameraConfig):
    """An Intel RealSense of the D400 family by its serial number: colour, and depth aligned to it where it is wanted.

    Attributes:
        serial: its serial number, as `rs-enumerate-devices -s` prints it.
        depth_exposure_us: of the depth sensor where it is one of its own; left out, automatic [us].
        depth_gain: of that sensor; left out beside an exposure, it stays as it is.
        hardware_sync: the device's inter-camera mode: one camera of a rig is `master`, the others `slave` or
            `full_slave` (colour too, D455 and alike).
        stamps: what the time of a frame is taken from: `hardware`, the device's own clock; `global`, the SDK's estimate
            on the host's; `arrival` where the host's kernel gives no metadata. See docs/cameras.md.
    """

    kind: Literal["realsense"]
    serial: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{4,32}$")]
    depth_exposure_us: Annotated[float, Field(ge=1.0, le=1e6)] | None = None
    depth_gain: Annotated[float, Field(ge=0.0, le=1e4)] | None = None
    hardware_sync: Literal["off", "master", "slave", "full_slave"] = "off"
    stamps: Literal["hardware", "global", "arrival"] = "hardware"


class UvcCameraConfig(PinnedCameraConfig):
    """A USB camera by Video4Linux.

    Attributes:
        device: best given as its `/dev/v4l/by-id/...` name, which survives replugging.
        pixels: format in which the device is asked for pictures.
        stamps: what the time of a frame is taken from: `driver`, when the kernel had its first bytes; `arrival`, when
            this process had all of it. See docs/cameras.md.
        depth_stream: it has no depth.
    """

    kind: Literal["uvc"]
    device: Annotated[str, Field(pattern=r"^/dev/[A-Za-z0-9/._:+-]+$")]
    pixels: Literal["mjpeg", "yuyv"] = "mjpeg"
    stamps: Literal["driver", "arrival"] = "driver"
    depth_stream: Literal[False] = False


class PlaybackCameraConfig(LiveCameraConfig):
    """A camera that plays a file in real time, beside any arm: a video, or one camera of an episode of ours.

    Frames come at the distances of the file's own times.

    Attributes:
        file: relative to the station file.
        view: the camera's name in an episode (`.h5`); empty for a video.
        repeat: at the end it begins anew; otherwise the camera falls silent, as one that is unplugged.
        depth_stream: it has no depth.
    """

    kind: Literal["playback"]
    file: Annotated[str, Field(min_length=1)]
    view: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,31})?$")] = ""
    repeat: bool = True
    depth_stream: Literal[False] = False


class EnvironmentCameraConfig(Strict):
    """What a Gymnasium environment renders, cut and averaged down; it has one such view.

    Attributes:
        name: of the camera, in files and messages and for the bundle.
        height: of what the policy gets [px].
        width: of what the policy gets [px].
    """

    kind: Literal["gymnasium"]
    name: Name
    height: Annotated[int, Field(ge=8, le=2160)]
    width: Annotated[int, Field(ge=8, le=3840)]


class RecordedCameraConfig(Strict):
    """A camera that plays one view of a recording, in step with the recorded arm.

    Attributes:
        name: of the camera, in files and messages and for the bundle.
        view: name of its pictures in the recording.
        latency_s: by how much it is behind the arm [s].
    """

    kind: Literal["recorded"]
    name: Name
    view: str
    latency_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


LiveCamera = (  # each has a driver, which `perception/camera_process.py` runs
    SimulatedCameraConfig | PatternCameraConfig | RealSenseCameraConfig | UvcCameraConfig | PlaybackCameraConfig
)
CameraConfig = Annotated[
    LiveCamera | RecordedCameraConfig | EnvironmentCameraConfig,
    Field(discriminator="kind"),
]


def _as_list(value: object) -> object:
    """Let one file stand without brackets."""
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, (list, tuple)) or not files or not all(isinstance(file, str) and file for file in files):
        raise ValueError("must be the name of a file, or a list of such names")
    return files


Files = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class CalibrationConfig(Strict):
    """Calibration files of `calibrate_rig.py` by camera, relative to the station file; each episode records them.

    They say where a camera is and how its lens maps, for the fused view and for new bundles. That of `extrinsics` says
    both; one of `hand-eye` and one of `intrinsics` do so together.

    A bundle that was trained with a camera more than `same_mm` or `same_deg` from where it is now is warned of.

    Attributes:
        files: by camera its result file, or a list of two.
        max_age_days: a file that is older is warned of.
        same_mm: distance up to which two places of a camera count as the same [mm].
        same_deg: turn up to which they do [deg].
    """

    files: dict[Name, Files] = Field(default_factory=dict)
    max_age_days: Annotated[float, Field(gt=0.0, le=3650.0)] = 90.0
    same_mm: Annotated[float, Field(gt=0.0, le=1000.0)] = 5.0
    same_deg: Annotated[float, Field(gt=0.0, le=180.0)] = 0.5


class SynchroniserConfig(Strict):
    """Which frames make an observation, and when it may be trusted.

    Attributes:
        max_skew_s: greatest time between the captures of its frames [s].
        max_age_s: greatest age of its oldest frame [s].
        max_repeats: how many ticks in a row may use the same frame of a camera again.
        policy: `latest_common` takes the frames with the least skew + `age_weight` * age; `nearest` takes of each
            camera what is nearest to the newest frame of the one that is furthest behind.
        history: how many of the last frames of each camera are looked at.
        age_weight: what a second of age counts against one of skew.
        max_extra_age_s: how much older than the newest possible ones the chosen frames may be; left out: `max_age_s`
            [s].
        proprio_time: `tick`: the proprioception is that of the tick's start; `frames`: that of the moment in the middle
            of the frames, as policies trained on latency-corrected data (UMI) expect it.
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

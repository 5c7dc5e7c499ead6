"""The manifest of an exported policy: what it needs, what it gives and how it was scaled."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from perception.config import Colour, Crop, check_crop
from policy.observation_history import HistoryTicks
from robot.command import CommandKind
from robot.strict import Strict

SCHEMA_VERSION = 1
MAX_FEATURES = 4096
LEAST_PICTURE_PX, MOST_PICTURE_PX = 8, 64  # per edge, of pictures that features end with
TCP_DIMS = ("x", "y", "z", "roll", "pitch", "yaw")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PicturePx = Annotated[int, Field(ge=LEAST_PICTURE_PX, le=MOST_PICTURE_PX)]
ServerKey = Annotated[str, Field(min_length=1, max_length=64)]


class CameraInput(Strict):
    """One camera image that the policy takes, batch 1, (H, W, 3) uint8.

    It is the window `crop` of the camera's picture (left, top, right, bottom as shares of its width and height),
    averaged down; without `crop`, the largest window about the middle of the aspect ratio of the image. `colour` is the
    order in which the graphs take the colours; cameras, log and everything else have red first.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    height: Annotated[int, Field(ge=8, le=4096)]
    width: Annotated[int, Field(ge=8, le=4096)]
    crop: Annotated[Crop, AfterValidator(check_crop)] | None = None
    colour: Colour = "rgb"


class CloudInput(Strict):
    """The point cloud that the policy takes as `point_cloud`, batch 1, (N, 6) float32, base frame [m] and colours 0..1.

    What it was cut to and how finely is what it was trained on; the station's fused view must be the same.
    """

    points: Annotated[int, Field(ge=16, le=65536)]
    voxel_m: Positive
    workspace_min_m: tuple[Finite, Finite, Finite]
    workspace_max_m: tuple[Finite, Finite, Finite]


class FeaturePictures(Strict):
    """Small grey pictures, -1 to 1, that the features end with: of each camera in turn, row by row.

    A residual may learn an encoder of its own on them, see `policy.picture_encoder`.
    """

    height: PicturePx
    width: PicturePx


class ProprioInput(Strict):
    """One proprioception key: of `perception.proprioception`, or a reading that the station's arm gives."""

    key: str
    size: Annotated[int, Field(ge=1, le=64)]


class ActionSpec(Strict):
    """How a normalised action maps to SI.

    `si = action * scale + offset` per dimension; dimensions that are not listed stay as they are. The
    base's own actions stay within `1 - headroom`, so that a residual keeps authority at the limits.
    """

    kind: CommandKind
    frame: Literal["base", "tcp"]
    dims: Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
    scale: tuple[Positive, ...]
    offset: tuple[Finite, ...]
    headroom: Annotated[float, Field(ge=0.0, lt=1.0)]
    gripper: Literal["binary", "width", "none"]
    gripper_open_m: Annotated[float, Field(ge=0.0, le=0.5)]
    gripper_closed_m: Annotated[float, Field(ge=0.0, le=0.5)]

    @property
    def size(self) -> int:
        """Number of action dimensions A."""
        return len(self.dims)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.dims) == len(self.scale) == len(self.offset):
            raise ValueError(f"dims, scale and offset differ in length: {self.dims}, {self.scale}, {self.offset}")
        if len(set(self.dims)) != len(self.dims):
            raise ValueError(f"an action dimension is named twice: {self.dims}")
        if ("gripper" in self.dims) != (self.gripper != "none"):
            raise ValueError(f"gripper mode is {self.gripper!r} but dims are {self.dims}")
        if self.kind in (CommandKind.TCP_DELTA, CommandKind.TCP_POSE):
            unknown = set(self.dims) - set(TCP_DIMS) - {"gripper"}
            if unknown:
                raise ValueError(f"unknown TCP dimensions {sorted(unknown)} (allowed {TCP_DIMS} and gripper)")
        return self


class EntryPoint(Strict):
    """One ONNX file of the bundle, by name inside the bundle's folder."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.onnx$")]
    sha256: Sha256


class CameraCalibration(Strict):
    """Where a camera was when the policy was trained.

    `T_base_camera` or, for a camera on the arm, `T_tcp_camera`: row-major 4x4 [m], OpenCV axes
    (x right, y down, z forward); `mount` says which. Intrinsics are pinhole [px].
    """

    mount: Literal["base", "tcp"]
    T_mount_camera: Annotated[tuple[Finite, ...], Field(min_length=16, max_length=16)]
    fx: Positive
    fy: Positive
    cx: Finite
    cy: Finite


class RemoteAct(Strict):
    """How a policy on another process or machine is asked for chunks, in the words of its server.

    The endpoint and the prompt are the station's. A server that speaks the openpi websocket protocol takes one flat
    dictionary and gives one with the chunk (H, A) in it.

    Attributes:
        images: camera of the bundle -> the server's name of its image (H, W, 3) uint8.
        state: the server's name of a vector -> proprioception keys of the bundle, one after another, float32.
        state_scale, state_offset: the server's value = ours * scale + offset, for proprioception keys whose units
            differ.
        prompt: the server's name of the text that says what to do; empty for a server that takes none.
        actions: the server's name of the chunk.
        scale, offset: normalised action = the server's value * scale + offset, per dimension.
    """

    protocol: Literal["openpi"] = "openpi"
    images: dict[str, ServerKey]
    state: dict[ServerKey, Annotated[tuple[str, ...], Field(min_length=1)]]
    state_scale: dict[str, Finite] = Field(default_factory=dict)
    state_offset: dict[str, Finite] = Field(default_factory=dict)
    prompt: Annotated[str, Field(max_length=64)] = "prompt"
    actions: ServerKey = "actions"
    scale: tuple[Finite, ...]
    offset: tuple[Finite, ...]


class Manifest(Strict):
    """manifest.json of a bundle.

    `encode` maps images and proprioception to features, every tick; `act` maps features and
    proprioception to the action chunk, when it is due. `remote` stands in place of `act` for a policy that runs
    elsewhere. `feature_size` counts the `pictures` that the features may end with. `history` is how many ticks a
    residual on this base sees; without it the present one. `golden_chunk` is what the policy gave on `policy.golden`'s
    observation when it was exported, (H, A).
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    version: Annotated[int, Field(ge=1)]
    created_utc: str
    rate_hz: Annotated[float, Field(ge=1.0, le=200.0)]
    cameras: Annotated[tuple[CameraInput, ...], Field(max_length=8)]
    proprio: tuple[ProprioInput, ...]
    point_cloud: CloudInput | None = None
    action: ActionSpec
    chunk_length: Annotated[int, Field(ge=1, le=256)]
    execute_steps: Annotated[int, Field(ge=1, le=256)]
    feature_size: Annotated[int, Field(ge=1, le=MAX_FEATURES)]
    pictures: FeaturePictures | None = None
    history: HistoryTicks | None = None
    encode: EntryPoint
    act: EntryPoint | None = None
    remote: RemoteAct | None = None
    calibration: dict[str, CameraCalibration]
    training: dict[str, str | int | float]
    golden_chunk: tuple[tuple[Finite, ...], ...] | None = None
    content_sha256: Sha256

    @property
    def proprio_size(self) -> int:
        """Length P of the proprioception vector."""
        return sum(entry.size for entry in self.proprio)

    @property
    def picture_shape(self) -> tuple[int, int, int] | None:
        """Cameras, height and width of the pictures that the features end with; None without."""
        return (len(self.cameras), self.pictures.height, self.pictures.width) if self.pictures else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.execute_steps > self.chunk_length:
            raise ValueError(f"execute_steps {self.execute_steps} exceeds chunk_length {self.chunk_length}")
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"a camera is named twice: {names}")
        if not names and not self.proprio:
            raise ValueError("a policy needs a camera or a proprioception key to see anything by; it has neither")
        if self.picture_shape is not None and not 0 < math.prod(self.picture_shape) < self.feature_size:
            raise ValueError(f"pictures are {self.picture_shape}, of {self.feature_size} features")
        if (self.act is None) == (self.remote is None):
            raise ValueError("a bundle has either 'act', a graph, or 'remote', a policy elsewhere")
        if self.golden_chunk is not None and [len(row) for row in self.golden_chunk] != (
            [self.action.size] * self.chunk_length
        ):
            raise ValueError(f"golden_chunk is no chunk of {self.chunk_length} actions of {self.action.size} numbers")
        if self.remote is not None:
            self._fits(self.remote)
        return self

    def _fits(self, remote: RemoteAct) -> None:
        """Raise ValueError where `remote` names what the bundle does not have."""
        proprio = {entry.key for entry in self.proprio}
        for what, named, known in (
            ("images", set(remote.images), {camera.name for camera in self.cameras}),
            ("state", {key for keys in remote.state.values() for key in keys}, proprio),
            ("state_scale", set(remote.state_scale), proprio),
            ("state_offset", set(remote.state_offset), proprio),
        ):
            if named - known:
                raise ValueError(f"remote.{what} names {sorted(named - known)} (the bundle has {sorted(known)})")
        if not len(remote.scale) == len(remote.offset) == self.action.size:
            raise ValueError(f"remote.scale and remote.offset must have {self.action.size} values, one per dimension")
        keys = [*remote.images.values(), *remote.state, *([remote.prompt] if remote.prompt else [])]
        if len(set(keys)) != len(keys):
            raise ValueError(f"remote gives the server two values under one name: {keys}")


def content_hash(manifest: dict[str, object]) -> str:
    """SHA-256 over the manifest without its own hash; the ONNX files enter by their hashes [hex]."""
    rest = {key: value for key, value in manifest.items() if key != "content_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

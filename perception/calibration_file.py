"""What a station takes from a calibration file of `calibrate_rig.py`: date, hash, where a camera is, and its lens."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perception.camera_model import CameraModel
from perception.config import Finite
from robot.errors import BadInputError

Array = NDArray[np.float64]

HASH_KEY = "content_sha256"
MOST_BYTES = 50_000_000


def content_hash(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document but for its own hash: JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in document.items() if key != HASH_KEY}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CameraPose:
    """Where a camera is.

    Attributes:
        mount: `base` for T_base_camera, `tcp` for T_tcp_camera.
        T_mount_camera: (4, 4) [m], OpenCV axes.
    """

    mount: Literal["base", "tcp"]
    T_mount_camera: Array


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """A calibration file as a station has it.

    Attributes:
        path: of the file.
        kind: `extrinsics`, `hand-eye`, `intrinsics` or another that `calibrate_rig.py` writes.
        created: when it was made.
        data: the file's bytes, which a run keeps.
        poses: camera -> where it is; a file of one camera that was not told its name has it under "".
        lenses: camera -> its lens, in the same way.
        forced: a person kept it though a check failed.
    """

    path: Path
    kind: str
    created: datetime.datetime
    data: bytes
    poses: Mapping[str, CameraPose]
    lenses: Mapping[str, CameraModel]
    forced: bool = False

    @property
    def sha256(self) -> str:
        """Of the file's bytes; what an episode's header names."""
        return hashlib.sha256(self.data).hexdigest()

    def pose(self, camera: str) -> CameraPose | None:
        """Return where `camera` is by this file, None where it does not say."""
        return self.poses.get(camera, self.poses.get(""))

    def lens(self, camera: str) -> CameraModel | None:
        """Return the lens of `camera` by this file, None where it does not say."""
        return self.lenses.get(camera, self.lenses.get(""))

    def age_days(self, now: datetime.datetime) -> float:
        """Return how old it is [days]."""
        return (now - self.created).total_seconds() / 86400.0


class _Lenient(BaseModel):
    """A part of a file whose other keys are the calibration's own business."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Row = tuple[Finite, Finite, Finite, Finite]
Rows = tuple[Row, Row, Row, Row]


class _Head(_Lenient):
    schema_version: Literal[1]
    kind: Annotated[str, Field(min_length=1, max_length=64)]
    created_utc: datetime.datetime
    content_sha256: str
    forced: bool = False


class _RigCamera(_Lenient):
    mount: Literal["base", "hand"]
    T_mount_camera: Rows
    lens: CameraModel


class _Rig(_Lenient):
    cameras: dict[str, _RigCamera]


class _Intrinsics(_Lenient):
    camera: CameraModel


class _HandEye(_Lenient):
    camera: str | None = None
    setup: Literal["eye-in-hand", "eye-to-hand"]
    T_hand_camera: Rows | None = None
    T_base_camera: Rows | None = None


def read_document(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return what a calibration file says, unchecked, and its bytes. Raises BadInputError when it is no JSON object."""
    where = f"calibration {path}"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(f"{where}: {path.stat().st_size} bytes; is no calibration")
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{where}: cannot be read ({error.strerror}); see calibrate_rig.py") from None
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise BadInputError(f"{where}: is no JSON; calibrate again") from None
    if not isinstance(document, dict):
        raise BadInputError(f"{where}: is no JSON object; calibrate again")
    return document, data


def wrong_key(path: Path, error: ValidationError) -> BadInputError:
    """Return the line about the first key that is wrong in a calibration file."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "the whole"
    return BadInputError(f"calibration {path}: key '{key}': {first['msg']}; calibrate again")


def read_calibration(path: Path) -> CalibrationFile:
    """Return what a station takes from the calibration in `path`.

    Raises:
        BadInputError: no such file, no calibration, or edited since it was made.
    """
    where = f"calibration {path}"
    document, data = read_document(path)
    try:
        head = _Head.model_validate(document)
        if head.created_utc.tzinfo is None:
            raise BadInputError(f"{where}: key 'created_utc' has no time zone; calibrate again")
        poses, lenses = _cameras(head.kind, document)
    except ValidationError as error:
        raise wrong_key(path, error) from None
    try:
        unchanged = content_hash(document) == head.content_sha256
    except ValueError:  # NaN, which none of ours has
        unchanged = False
    if not unchanged:
        raise BadInputError(f"{where}: was changed after it was made ({HASH_KEY} differs); calibrate again")
    for name, pose in poses.items():
        if not _rigid(pose.T_mount_camera):
            raise BadInputError(f"{where}: the pose of camera {name!r} is no rigid transform; calibrate again")
    return CalibrationFile(
        path=path, kind=head.kind, created=head.created_utc, data=data, poses=poses, lenses=lenses, forced=head.forced
    )


def _cameras(kind: str, document: Mapping[str, Any]) -> tuple[dict[str, CameraPose], dict[str, CameraModel]]:
    """Return the cameras' poses and lenses; empty for a kind that has none. The hand's frame is the arm's TCP."""
    if kind == "extrinsics":
        cameras = _Rig.model_validate(document).cameras
        poses = {
            name: CameraPose(
                mount="base" if camera.mount == "base" else "tcp", T_mount_camera=np.array(camera.T_mount_camera)
            )
            for name, camera in cameras.items()
        }
        return poses, {name: camera.lens for name, camera in cameras.items()}
    if kind == "intrinsics":
        return {}, {"": _Intrinsics.model_validate(document).camera}
    if kind == "hand-eye":
        found = _HandEye.model_validate(document)
        rows = found.T_hand_camera if found.setup == "eye-in-hand" else found.T_base_camera
        if rows is None:
            return {}, {}
        mount: Literal["base", "tcp"] = "tcp" if found.setup == "eye-in-hand" else "base"
        return {found.camera or "": CameraPose(mount=mount, T_mount_camera=np.array(rows))}, {}
    return {}, {}


def _rigid(T: Array) -> bool:
    R = T[:3, :3]
    orthogonal = np.allclose(R @ R.T, np.eye(3), atol=1e-6) and np.linalg.det(R) > 0.0
    return bool(orthogonal and (T[3] == [0.0, 0.0, 0.0, 1.0]).all())

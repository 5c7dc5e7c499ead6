"""An exported policy: a folder with manifest.json and its ONNX graphs, checked before it may move an arm.

`encode.onnx` maps `<camera>_image` (1, H, W, 3) uint8, `proprio` (1, P) float32 and, where the manifest has one,
`point_cloud` (1, N, 6) float32 to `features` (1, F);
`act.onnx` maps `features` and `proprio` to `chunk` (1, H, A). Normalisation is inside the graphs. A bundle whose chunks
come from a remote policy has no `act.onnx`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.policy_image import in_order
from perception.proprioception import key_sizes
from policy.manifest import Manifest
from policy.manifest_file import BUNDLE, MANIFEST_FILE, read_manifest
from policy.model_folder import listed, read_graph
from policy.onnx_session import OnnxSession, PolicyError, Provider, TensorSpec
from robot.command import CommandKind
from robot.errors import BadInputError

Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How long each entry point took in the warm-up, in order [ms]; no `act_ms` where a remote policy acts."""

    encode_ms: tuple[float, ...]
    act_ms: tuple[float, ...]


class Bundle:
    """A validated policy, ready to run; made by `load_bundle`."""

    def __init__(self, folder: Path, manifest: Manifest, encode: OnnxSession, act: OnnxSession | None) -> None:
        self.folder = folder
        self.manifest = manifest
        self._encode = encode
        self._act = act
        self._colours = {camera.name: camera.colour for camera in manifest.cameras}

    @property
    def sha256(self) -> str:
        """The manifest's content hash, which covers the graphs by their hashes [hex]."""
        return self.manifest.content_sha256

    @property
    def provider(self) -> str:
        """ONNX Runtime's execution provider in use; part of what makes a replay equal bit for bit."""
        return self._encode.provider

    def encode(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        proprio: NDArray[np.float32],
        cloud: NDArray[np.float32] | None = None,
    ) -> Features:
        """Return the features (F,) float32, read-only.

        Args:
            images: per camera of the manifest (others are not looked at), (H, W, 3) uint8 RGB.
            proprio: shape (P,), float32, the manifest's keys one after another.
            cloud: shape (N, 6), float32; not looked at by a policy that takes none.

        Raises:
            PolicyError: a camera or the cloud is missing, a shape or type is wrong, or the runtime failed.
        """
        inputs: dict[str, NDArray[Any]] = {
            f"{name}_image": in_order(image, self._colours[name])[None]
            for name, image in images.items()
            if name in self._colours
        }
        if self.manifest.point_cloud is not None and cloud is not None:
            inputs["point_cloud"] = cloud[None]
        result: Features = self._encode.run({**inputs, "proprio": proprio[None]})["features"][0]
        return result

    def act(self, features: Features, proprio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the action chunk (H, A) float32, normalised, read-only, for features (F,) and proprio (P,).

        Raises:
            PolicyError: a shape or type is wrong, the runtime failed, or a remote policy gives the chunks.
        """
        if self._act is None:
            raise PolicyError(f"bundle {self.folder}: its chunks come from a remote policy, not from here")
        result: NDArray[np.float32] = self._act.run({"features": features[None], "proprio": proprio[None]})["chunk"][0]
        return result

    def warm_up(self, runs: int = 5) -> WarmUp:
        """Run the entry points on blank input, as the first runs are slow; call it before motion is allowed.

        Raises:
            BadInputError: the policy gives NaN or infinity on a blank input.
        """
        images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in self.manifest.cameras}
        proprio = np.zeros(self.manifest.proprio_size, np.float32)
        wanted = self.manifest.point_cloud
        cloud = None if wanted is None else np.zeros((wanted.points, 6), np.float32)
        encode_ms, act_ms = [], []
        for _ in range(runs):
            begun_s = time.perf_counter()
            features = self.encode(images, proprio, cloud)
            encoded_s = time.perf_counter()
            encode_ms.append((encoded_s - begun_s) * 1e3)
            finite = np.isfinite(features).all()
            if self._act is not None:
                finite &= np.isfinite(self.act(features, proprio)).all()
                act_ms.append((time.perf_counter() - encoded_s) * 1e3)
            if not finite:
                raise BadInputError(f"bundle {self.folder}: gives NaN or infinity on a blank input; train it again")
        return WarmUp(encode_ms=tuple(encode_ms), act_ms=tuple(act_ms))

    def files(self) -> dict[str, bytes]:
        """Return the bundle's files by name, read and verified anew, for copying into a run folder.

        Raises:
            BadInputError: a file changed since it was loaded.
        """
        manifest, raw = read_manifest(self.folder)
        if manifest.content_sha256 != self.sha256:
            raise BadInputError(f"bundle {self.folder}: {MANIFEST_FILE} changed since it was loaded; start again")
        entries = (manifest.encode, manifest.act)
        return {
            MANIFEST_FILE: raw,
            **{entry.file: read_graph(BUNDLE, self.folder, entry) for entry in entries if entry},
        }


def load_bundle(path: str | Path, provider: Provider = "auto", threads: int = 1) -> Bundle:
    """Return the bundle in folder `path`, after every check that needs no station.

    Raises:
        BadInputError: one line that says what is wrong: folder, manifest key, version, hash, or graph.
    """
    folder = Path(path)
    manifest, _ = read_manifest(folder)
    images: dict[str, TensorSpec] = {
        f"{camera.name}_image": ((1, camera.height, camera.width, 3), np.uint8) for camera in manifest.cameras
    }
    if manifest.point_cloud is not None:
        images["point_cloud"] = (1, manifest.point_cloud.points, 6), np.float32
    proprio: TensorSpec = ((1, manifest.proprio_size), np.float32)
    features: TensorSpec = ((1, manifest.feature_size), np.float32)
    chunk: TensorSpec = ((1, manifest.chunk_length, manifest.action.size), np.float32)
    encode = OnnxSession(
        read_graph(BUNDLE, folder, manifest.encode),
        f"bundle {folder}: {manifest.encode.file}",
        inputs={**images, "proprio": proprio},
        outputs={"features": features},
        provider=provider,
        threads=threads,
    )
    if manifest.act is None:
        return Bundle(folder, manifest, encode, None)
    act = OnnxSession(
        read_graph(BUNDLE, folder, manifest.act),
        f"bundle {folder}: {manifest.act.file}",
        inputs={"features": features, "proprio": proprio},
        outputs={"chunk": chunk},
        provider=provider,
        threads=threads,
    )
    return Bundle(folder, manifest, encode, act)


def misfits(
    bundle: Bundle,
    *,
    cameras: Mapping[str, tuple[int, int]],
    rate_hz: float,
    joint_count: int,
    station: str,
    readings: Mapping[str, int] | None = None,
) -> list[str]:
    """Return one line per reason why the bundle cannot run on a station; empty when it fits.

    Args:
        bundle: the policy.
        cameras: per camera of the station, (height, width) of the image that it gives the policy [px].
        rate_hz: the station's loop rate [Hz]; must be the rate of training, as actions are per tick.
        joint_count: joints N of the station's arm.
        station: the station's name or file, for the lines.
        readings: what the arm measures besides, name -> how many numbers.
    """
    manifest = bundle.manifest
    what = f"bundle '{manifest.name}'"
    lines = []
    for camera in manifest.cameras:
        size = cameras.get(camera.name)
        if size is None:
            lines.append(
                f"{what} needs camera '{camera.name}', which {station} lacks (it has {listed(cameras)}); "
                "name a camera so or use a bundle trained with its cameras"
            )
        elif size != (camera.height, camera.width):
            lines.append(
                f"{what} takes camera '{camera.name}' at {camera.width}x{camera.height}, {station} gives "
                f"{size[1]}x{size[0]}; set the camera's policy image to {camera.width}x{camera.height}"
            )
    if abs(rate_hz - manifest.rate_hz) > 1e-6 * manifest.rate_hz:
        lines.append(
            f"{what} was trained at {manifest.rate_hz:g} Hz, loop.rate_hz of {station} is {rate_hz:g}; "
            f"set loop.rate_hz to {manifest.rate_hz:g}"
        )
    known = key_sizes(joint_count, readings or {})
    for entry in manifest.proprio:
        if entry.key not in known:
            lines.append(
                f"{what} needs proprio '{entry.key}', which is unknown (allowed {listed(known)}); export it anew"
            )
            continue
        expected = known[entry.key]
        if entry.size != expected:
            lines.append(
                f"{what} takes {entry.size} values of proprio '{entry.key}', {station} gives {expected}; "
                "use a bundle trained for this arm"
            )
    joints = sum(name != "gripper" for name in manifest.action.dims)
    if manifest.action.kind in (CommandKind.JOINT_DELTA, CommandKind.JOINT_POSITION) and joints != joint_count:
        lines.append(f"{what} drives {joints} joints, {station} has {joint_count}; use a bundle trained for this arm")
    if manifest.action.kind is CommandKind.ACTUATION and joints != joint_count:
        lines.append(
            f"{what} drives {joints} actuators, {station} has {joint_count}; use a bundle trained for this arm"
        )
    return lines


def check_fits(
    bundle: Bundle,
    *,
    cameras: Mapping[str, tuple[int, int]],
    rate_hz: float,
    joint_count: int,
    station: str,
    readings: Mapping[str, int] | None = None,
) -> None:
    """Raise BadInputError with the first of `misfits`, if there is one; same arguments."""
    for line in misfits(
        bundle, cameras=cameras, rate_hz=rate_hz, joint_count=joint_count, station=station, readings=readings
    ):
        raise BadInputError(line)

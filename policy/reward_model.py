"""An exported reward model: a folder with reward.json and its ONNX graph, checked before it may reward anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.policy_image import in_order
from policy.model_folder import listed, read_graph
from policy.onnx_session import OnnxSession, Provider, Tensor, TensorSpec
from policy.reward_manifest import REWARD_MANIFEST_FILE, REWARD_MODEL, RewardManifest, read_reward_manifest
from robot.errors import BadInputError


class RewardModel:
    """A validated reward model, ready to run; made by `load_reward_model`."""

    def __init__(self, folder: Path, manifest: RewardManifest, session: OnnxSession) -> None:
        self.folder, self.manifest = folder, manifest
        self._session = session
        self._colours = {camera.name: camera.colour for camera in manifest.cameras}

    @property
    def sha256(self) -> str:
        """The manifest's content hash, which covers the graph by its hash [hex]."""
        return self.manifest.content_sha256

    @property
    def provider(self) -> str:
        """ONNX Runtime's execution provider in use."""
        return self._session.provider

    def probability(self, images: Mapping[str, NDArray[np.uint8]], proprio: NDArray[np.float32]) -> np.float32:
        """Return what the graph gives for one tick, raw: it may be no number at all.

        Args:
            images: per camera of the manifest (others are not looked at), (H, W, 3) uint8 RGB.
            proprio: shape (P,), the manifest's keys one after another; of length 0 where it takes none.

        Raises:
            PolicyError: a camera is missing, a shape or type is wrong, or the runtime failed.
        """
        inputs: dict[str, Tensor] = {
            f"{name}_image": in_order(image, self._colours[name])[None]
            for name, image in images.items()
            if name in self._colours
        }
        if self.manifest.proprio:
            inputs["proprio"] = proprio[None]
        value: np.float32 = self._session.run(inputs)["probability"][0, 0]
        return value

    def warm_up(self, runs: int = 5) -> tuple[float, ...]:
        """Run on blank input, as the first runs are slow; return how long each took [ms]."""
        images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in self.manifest.cameras}
        proprio = np.zeros(self.manifest.proprio_size, np.float32)
        took_ms = []
        for _ in range(runs):
            begun_s = time.perf_counter()
            self.probability(images, proprio)
            took_ms.append((time.perf_counter() - begun_s) * 1e3)
        return tuple(took_ms)

    def files(self) -> dict[str, bytes]:
        """Return its files by name, read and verified anew, for copying into a run folder.

        Raises:
            BadInputError: a file changed since it was loaded.
        """
        manifest, raw = read_reward_manifest(self.folder)
        if manifest.content_sha256 != self.sha256:
            raise BadInputError(
                f"reward model {self.folder}: {REWARD_MANIFEST_FILE} changed since it was loaded; start again"
            )
        return {REWARD_MANIFEST_FILE: raw, manifest.graph.file: read_graph(REWARD_MODEL, self.folder, manifest.graph)}


def load_reward_model(path: str | Path, provider: Provider = "auto", threads: int = 1) -> RewardModel:
    """Return the reward model in folder `path`, after every check that needs no station.

    Raises:
        BadInputError: one line that says what is wrong: folder, manifest key, version, hash, or graph.
    """
    folder = Path(path)
    manifest, _ = read_reward_manifest(folder)
    inputs: dict[str, TensorSpec] = {
        f"{camera.name}_image": ((1, camera.height, camera.width, 3), np.uint8) for camera in manifest.cameras
    }
    if manifest.proprio:
        inputs["proprio"] = ((1, manifest.proprio_size), np.float32)
    session = OnnxSession(
        read_graph(REWARD_MODEL, folder, manifest.graph),
        f"{REWARD_MODEL.where(folder)}: {manifest.graph.file}",
        inputs=inputs,
        outputs={"probability": ((1, 1), np.float32)},
        provider=provider,
        threads=threads,
        again=REWARD_MODEL.again,
    )
    return RewardModel(folder, manifest, session)


def reward_misfits(
    manifest: RewardManifest,
    *,
    cameras: Mapping[str, tuple[int, int]],
    proprio: Mapping[str, int],
    rate_hz: float,
    where: str,
) -> list[str]:
    """Return one line per reason why a reward model cannot judge what a policy sees; empty when it can.

    Args:
        manifest: of the reward model.
        cameras: per camera of the policy, (height, width) of its image [px].
        proprio: size of each of the policy's proprioception keys.
        rate_hz: the loop's rate [Hz]; the debounce counts ticks of the rate that it was chosen for.
        where: whose cameras these are, for the lines.
    """
    what = f"reward model '{manifest.name}'"
    lines = []
    for camera in manifest.cameras:
        size = cameras.get(camera.name)
        if size is None:
            lines.append(
                f"{what} looks at camera '{camera.name}', which {where} does not (it has {listed(cameras)}); "
                "train one on its cameras"
            )
        elif size != (camera.height, camera.width):
            lines.append(
                f"{what} takes camera '{camera.name}' at {camera.width}x{camera.height}, {where} sees "
                f"{size[1]}x{size[0]}; train one on pictures of that size"
            )
    for entry in manifest.proprio:
        if proprio.get(entry.key) != entry.size:
            got = f"{proprio[entry.key]} values" if entry.key in proprio else "none"
            lines.append(
                f"{what} takes {entry.size} values of proprio '{entry.key}', {where} has {got} "
                f"(it has {listed(proprio)}); train one on its proprioception"
            )
    if abs(rate_hz - manifest.rate_hz) > 1e-6 * manifest.rate_hz:
        lines.append(
            f"{what} was made for {manifest.rate_hz:g} Hz, loop.rate_hz of {where} is {rate_hz:g}; "
            f"set loop.rate_hz to {manifest.rate_hz:g} or train one at this rate"
        )
    return lines


def proprio_columns(manifest: RewardManifest, proprio: Mapping[str, int]) -> NDArray[np.intp]:
    """Return where in the policy's proprioception vector the reward model's values lie, shape (P,)."""
    starts = dict(zip(proprio, np.cumsum([0, *proprio.values()]).tolist(), strict=False))
    columns = [starts[entry.key] + at for entry in manifest.proprio for at in range(entry.size)]
    return np.array(columns, np.intp)

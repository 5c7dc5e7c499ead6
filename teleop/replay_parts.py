"""What a replay computes with, rebuilt from a run folder: pipelines by station and bundle, heads by version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.config import SynchroniserConfig
from policy.bundle import Bundle, load_bundle
from policy.episode_header import EpisodeHeader
from policy.episode_reader import Episode
from policy.episode_schema import Row
from policy.observation_history import HistoryTicks, history_of
from policy.onnx_session import Provider
from policy.residual import ResidualHead
from policy.reward_model import RewardModel, load_reward_model
from policy.run_folder import RunFolder
from policy.weights import Expected, WeightsRefused, unpack, window_dims
from robot.config import SimulatedArmConfig
from robot.errors import BadInputError
from robot.filter_state import FilterState
from teleop.arbiter import ArbiterState
from teleop.fused_cameras import required_cloud_age_s
from teleop.reward_watch import RewardWatch, make_reward_watch
from teleop.rig import R_DOWN, make_pipeline, make_safety
from teleop.station import Station, station_from_json
from teleop.tick import TickPipeline, TickState

_BLOCK_BYTES = 32_000_000
_PROVIDERS: dict[str, Provider] = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "auto"}


def run_above(path: Path) -> RunFolder:
    """Return the run that an episode file or a folder belongs to. Raises BadInputError when there is none above it."""
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / "run.json").is_file():
            return RunFolder.open(folder)
    raise BadInputError(
        f"{path}: lies in no run folder (none above it has run.json), where its station, bundle and weights are; "
        "copy the whole run"
    )


def episode_files(paths: list[Path]) -> list[Path]:
    """Return the committed episode files of run folders, episodes folders and files, in order, each once.

    Raises:
        BadInputError: no such path, or a folder without an episode.
    """
    found: dict[Path, None] = {}
    for path in paths:
        folder = path / "episodes" if (path / "episodes").is_dir() else path
        files = sorted(folder.glob("*.h5")) if folder.is_dir() else [path]
        if not files:
            raise BadInputError(f"{folder}: holds no episode (*.h5); name a run, its episodes folder or a file")
        found.update(dict.fromkeys(files))
    return list(found)


def each_row(episode: Episode) -> Iterator[Row]:
    """Yield the rows one by one, read in blocks so that large pictures do not fill the memory."""
    size = max(1, _BLOCK_BYTES // episode.header.spec.row_dtype().itemsize)
    for start in range(0, episode.length, size):
        block: NDArray[np.void] = episode.rows(start, start + size)
        for place in range(len(block)):
            yield block[place, ...]


def start_state(header: EpisodeHeader) -> TickState:
    """Return the state before the first tick. Raises BadInputError when the header has none that can be read."""
    try:
        return TickState(
            arbiter=ArbiterState.unpacked(int(str(header.arbiter_state["packed"]))),
            filter=FilterState.from_json(json.dumps(header.filter_state)),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadInputError(
            f"episode {header.episode} of {header.run_id}: its header holds no state to start from ({error!r}); "
            "restore the file"
        ) from None


class RunParts:
    """The loop's own stages for the episodes of one run, made once for each station, bundle and weights."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._stations: dict[str, Station] = {}
        self._bundles: dict[tuple[str, str], Bundle] = {}
        self._heads: dict[tuple[int, str, str, HistoryTicks], ResidualHead] = {}
        self._rewards: dict[tuple[str, str], RewardModel] = {}

    def station(self, header: EpisodeHeader) -> Station:
        """Return the station that an episode ran with. Raises BadInputError."""
        sha256 = header.station_sha256
        if sha256 not in self._stations:
            where = str(self.run.path / "stations" / sha256)
            self._stations[sha256] = station_from_json(self.run.station(sha256), where)
        return self._stations[sha256]

    def bundle(self, header: EpisodeHeader) -> Bundle:
        """Return the base policy, on the logged provider where it is usable here. Raises BadInputError."""
        if header.bundle_sha256 is None:
            raise BadInputError(f"episode {header.episode} of {header.run_id}: no policy ran, nothing to recompute")
        station = self.station(header)
        key = (header.bundle_sha256, header.station_sha256)
        if key not in self._bundles:
            provider = _PROVIDERS.get(header.inference_provider or "", "cpu")
            self._bundles[key] = load_bundle(self.run.bundle(header.bundle_sha256), provider, station.policy.threads)
        return self._bundles[key]

    def pipeline(self, header: EpisodeHeader, bundle: Bundle | None = None) -> TickPipeline:
        """Return the stages of a tick; `bundle` takes the place of the one that ran. Raises BadInputError.

        Another bundle is asked within the tick: answers to what it would have asked ahead of time are not in the log.
        """
        station = self.station(header)
        safety = make_safety(station, header.spec.joint_count, _home_rotation(header, station))
        if bundle is not None:
            within = station.policy.model_copy(update={"mode": "synchronous"})
            return make_pipeline(station.model_copy(update={"policy": within}), bundle, safety)
        return make_pipeline(station, self.bundle(header), safety)

    def reward(self, header: EpisodeHeader) -> RewardWatch | None:
        """Return the reward model as it looked on, None where none did. Raises BadInputError."""
        if header.reward_sha256 is None:
            return None
        key = (header.reward_sha256, header.station_sha256)
        station = self.station(header)
        if key not in self._rewards:
            provider = _PROVIDERS.get(header.inference_provider or "", "cpu")
            self._rewards[key] = load_reward_model(self.run.reward(key[0]), provider, station.policy.threads)
        return make_reward_watch(station, self._rewards[key], header.spec)

    def synchroniser(self, header: EpisodeHeader) -> SynchroniserConfig:
        """Return when an observation was to be trusted. Raises BadInputError."""
        return self.station(header).synchroniser

    def required_cloud_age_s(self, header: EpisodeHeader) -> float | None:
        """Return how old a cloud might be that the policy acted on, None where it took none. Raises BadInputError."""
        return required_cloud_age_s(self.station(header), self.bundle(header))

    def heads(self, episode: Episode, versions: set[int]) -> dict[int, ResidualHead]:
        """Return the residual heads of `versions`, those that its rows name.

        An episode names its weights; one whose end was never written may have taken over more, which the run
        folder has under their version. A version that is nowhere is left out.

        Raises:
            BadInputError: weights are missing, changed, or not of the version that the episode gives them.
        """
        header = episode.header
        known = header.weights | {k: v for label in episode.labels for k, v in label.weights.items()}
        manifest = self.bundle(header).manifest
        history = history_of(manifest, self.station(header).residual)
        heads: dict[int, ResidualHead] = {}
        for version in sorted(versions):
            if version in known:
                heads[version] = self._head(version, known[version], header, history)
            elif version == 0:
                scale = header.residual_scale or (0.0,) * manifest.action.size
                heads[0] = ResidualHead.zero(window_dims(manifest, history), np.array(scale, np.float32))
            elif not episode.labels[0].complete:
                heads[version] = self._head(version, self.run.weights_sha256(version), header, history)
        return heads

    def _head(self, version: int, sha256: str, header: EpisodeHeader, history: HistoryTicks) -> ResidualHead:
        key = (version, sha256, header.bundle_sha256 or "", history)
        if key not in self._heads:
            where = self.run.path / "weights" / f"{version:08d}-{sha256}"
            # The robot judged them when it took them; 1 is the greatest scale that means anything.
            names = header.action.dims
            gripper = names.index("gripper") if "gripper" in names else None
            dims = window_dims(self.bundle(header).manifest, history)
            expected = Expected(
                dims=dims, bundle_sha256=key[2], max_scale=(1.0,) * dims.action, gripper=gripper, history=history
            )
            try:
                weights = unpack(self.run.weights(sha256), expected)
            except WeightsRefused as refusal:
                raise BadInputError(f"{where}: {refusal}; restore the run folder") from None
            if weights.version != version:
                raise BadInputError(f"{where}: holds version {weights.version}; the weights were swapped, restore them")
            self._heads[key] = weights.head
        return self._heads[key]


def _home_rotation(header: EpisodeHeader, station: Station) -> NDArray[np.float64]:
    """Return the orientation that the tilt limit counts from, (3, 3)."""
    if "R_base_home" in header.filter_state:
        return np.array(header.filter_state["R_base_home"], np.float64).reshape(3, 3)
    if isinstance(station.arm, SimulatedArmConfig):
        return R_DOWN
    return start_state(header).filter.T_base_tcp[:3, :3]

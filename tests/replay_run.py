"""A miniature real run for tests of the replay: the simulated station with a tiny policy, in lock-step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from policy.bundle import Bundle
from policy.chunk_source import ChunkSource
from policy.episode_commit import Committed, commit_episode
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource
from policy.episode_reader import read_episode
from policy.episode_schema import DIGEST_FIELD, Row, row_digest
from policy.episode_writer import EpisodeWriter
from policy.provenance import collect_provenance
from policy.residual import Dims
from policy.run_folder import RunFolder
from policy.weights import Expected, pack, unpack
from robot.clock import Clock, VirtualClock
from robot.simulation.layout import Split
from robot.simulation.place_layout import draw_place_layout
from teleop.chunk_parts import make_chunk_source
from teleop.exploration import Exploration
from teleop.human_input import HumanCommand, HumanEvent
from teleop.loop import ControlLoop
from teleop.loop_parts import LoopParts
from teleop.rig import Rig, make_pipeline
from teleop.station import LoadedStation, Station, load_station
from teleop.tick import TickState
from teleop.weights_in_force import WeightsInForce
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import DIMS, tiny_tensors

STATION = Path(__file__).parents[1] / "launch" / "stations" / "sim_place.toml"
SCALE = np.array([0.4, 0.4, 0.5, 0.0, 0.0], np.float32)
Source = Callable[[Station, Bundle], ChunkSource | None]
# poll number of the run -> what the person does; an episode has some 40 polls
ARM_AT, HOLD_AT, TAKEOVER, GRIPPER_FROM = 3, (29, 31), range(22, 27), 24
SECOND_TAKEOVER, SUCCESS_AT, STOP_AT = range(60, 63), 66, 88


class ScriptedHuman:
    """Arms, takes over, holds, labels and stops at fixed polls."""

    def __init__(self) -> None:
        self.polls = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def poll(self, now_s: float) -> HumanCommand:
        poll, self.polls = self.polls, self.polls + 1
        events = HumanEvent.NONE
        for event, polls in (
            (HumanEvent.ARM, (ARM_AT,)),
            (HumanEvent.HOLD, HOLD_AT),
            (HumanEvent.SUCCESS, (SUCCESS_AT,)),
            (HumanEvent.STOP, (STOP_AT,)),
        ):
            events |= event if poll in polls else HumanEvent.NONE
        engaged = poll in TAKEOVER or poll in SECOND_TAKEOVER
        return HumanCommand(
            twist=np.array([0.5, -0.4, 0.3 - 0.01 * poll, 0.0, 0.0, 0.2]) if engaged else np.zeros(6),
            gripper=-1.0 if engaged and poll >= GRIPPER_FROM else None,
            engaged=engaged,
            events=events,
            polled_s=now_s,
        )


class RecorderHere:
    """Writes and commits in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EpisodeWriter | None = None
        self.committed: list[Committed] = []

    def begin(self, header: EpisodeHeader) -> None:
        self._writer = EpisodeWriter(self._folder, header)

    def put(self, row: Row) -> bool:
        assert self._writer is not None
        self._writer.append(row)
        return True

    def end(self, outcome: EpisodeOutcome) -> None:
        assert self._writer is not None
        self.committed.append(commit_episode(self._writer.finish(outcome)))

    def close(self) -> None:
        return None


class ScheduledWeights(WeightsInForce):
    """Takes the next message over at fixed refreshes."""

    def __init__(self, run: RunFolder, expected: Expected, messages: Mapping[int, bytes]) -> None:
        self._run, self._expected, self._messages = run, expected, messages
        self._refreshes = 0
        self._taken: dict[int, str] = {}
        first = unpack(messages[0], expected)
        super().__init__(first.head, first.version, run.store_weights(first.version, messages[0]))

    def refresh(self) -> None:
        self._refreshes += 1
        message = self._messages.get(self._refreshes)
        if message is not None:
            weights = unpack(message, self._expected)
            self.head, self.version = weights.head, weights.version
            self.sha256 = self._run.store_weights(weights.version, message)
            self._taken[weights.version] = self.sha256

    def taken_over(self) -> dict[int, str]:
        taken, self._taken = self._taken, {}
        return taken


def weights_message(version: int, bundle_sha256: str, *, seed: int, dims: Dims = DIMS) -> bytes:
    """Weights for the tiny bundle with a gate, another residual for each seed."""
    tensors = tiny_tensors(dims, seed=seed) | {"scale": SCALE}
    return pack(version=version, run_id="run-1", bundle_sha256=bundle_sha256, dims=dims, tensors=tensors)


def load_tiny_station(bundle: Path, *more: tuple[str, str]) -> LoadedStation:
    """The simulated station with small pictures, a camera that drops frames, a gate, exploration and `more`."""
    return load_station(
        STATION,
        [
            ("policy.bundle", json.dumps(str(bundle))),
            ("policy.provider", '"cpu"'),
            ("arm.home_m", "[0.33, 0.0, 0.42]"),
            *((f"camera.{name}.{edge}", size) for name in ("front", "wrist") for edge, size in _SIZE),
            ("camera.wrist.drop_rate", "0.15"),
            ("synchroniser.max_repeats", "0"),
            ("residual.gate", "true"),
            ("exploration.start", "0.5"),
            ("exploration.end", "0.5"),
            ("exploration.gate_pass_share", "0.5"),
            ("episode.timeout_s", "1.0"),
            *more,
        ],
    )


_SIZE = (("height", "32"), ("width", "40"))


class LateClock(VirtualClock):
    """A wall clock in miniature: some waits end so much too late that ticks have to be skipped."""

    virtual = False

    def __init__(self, start_s: float, late_s: Mapping[int, float]) -> None:
        super().__init__(start_s)
        self._late_s, self._waits = late_s, 0

    def now_s(self) -> float:
        super().sleep_until(super().now_s() + 1e-5)  # no two looks at a wall clock show the same time
        return super().now_s()

    def sleep_until(self, deadline_s: float) -> None:
        super().sleep_until(deadline_s + self._late_s.get(self._waits, 0.0))
        self._waits += 1


def make_run(
    folder: Path, clock: Clock | None = None, *more: tuple[str, str], chunks: Source = make_chunk_source, **bundle: Any
) -> list[Path]:
    """Record three episodes of a tiny `bundle` into `folder / "run"` and return their files.

    Episode 0 begins with the arm verb, gets new weights in its middle, is taken over, held and times out; 1 gets new
    weights, too, and is labelled a success; 2 is stopped by the person.
    """
    loaded = load_tiny_station(make_tiny_bundle(folder / "bundle", **bundle), *more)
    clock, station = clock or VirtualClock(100.0), loaded.station
    run = RunFolder.create(folder / "run", collect_provenance(clock, operator="ada"), min_free_mb=0)
    recorder = RecorderHere(run.episodes)
    with Rig(loaded, clock, seed=5) as rig, ScriptedHuman() as human:
        expected = replace(Expected.of(rig.bundle.manifest, station.residual), max_scale=tuple(SCALE.tolist()))
        messages = {
            refresh: weights_message(version, rig.bundle.sha256, seed=version, dims=expected.dims)
            for refresh, version in ((0, 0), (20, 1), (60, 2))
        }
        weights = ScheduledWeights(run, expected, messages)
        loop = ControlLoop(
            LoopParts(
                clock=clock,
                arm=rig.arm,
                synchroniser=rig.synchroniser,
                human=human,
                pipeline=make_pipeline(station, rig.bundle, rig.safety()),
                recorder=recorder,
                weights=weights,
                exploration=Exploration(station.exploration, seed=5),
                health=rig.check,
                homing=rig.homing(),
                judge=None,
                reward=rig.reward,
                watcher=None,
                chunks=chunks(station, rig.bundle),
                labels=LabelSource.PERSON,
                spec=rig.spec,
                period_s=station.period_s,
                timeout_s=station.episode.timeout_s,
                reset_timeout_s=station.episode.reset_timeout_s,
            )
        )
        station_sha256 = run.store_station(loaded.text)
        run.store_bundle(rig.bundle.sha256, rig.bundle.files())
        if rig.reward is not None:
            run.store_reward(rig.reward.model.sha256, rig.reward.model.files())
        for index in range(3):

            def header(state: TickState, index: int = index) -> EpisodeHeader:
                return EpisodeHeader(
                    run_id=run.run_id,
                    episode=index,
                    started_utc=f"20261101T10153{index}.000000Z",
                    rate_hz=station.loop.rate_hz,
                    spec=rig.spec,
                    env_args={"env_name": station.name},
                    station_sha256=station_sha256,
                    bundle_sha256=rig.bundle.sha256,
                    reward_sha256=rig.reward_sha256,
                    weights={weights.version: weights.sha256},
                    action=rig.bundle.manifest.action,
                    residual_scale=tuple(float(value) for value in weights.head.scale),
                    filter_state=json.loads(state.filter.to_json()),
                    arbiter_state={"packed": state.arbiter.packed()},
                    inference_provider=rig.bundle.provider,
                    seed=5,
                    open_loop=False,
                    provenance=collect_provenance(clock, operator="ada"),
                )

            assert loop.wait_armed()
            layout = draw_place_layout(Split.TRAINING, 5, index)
            loop.run_episode(header, lambda start_s, layout=layout: rig.lay(layout, None, start_s))
    return [committed.path for committed in recorder.committed]


def edit_header(path: Path, edit: Callable[[dict[str, Any]], None], *, reseal: bool = True) -> None:
    """Change the header of a committed episode; bring its hash up to date where asked to."""
    with h5py.File(path, "r+") as file:
        attributes = file["data/demo_0"].attrs
        header = json.loads(attributes["header"])
        edit(header)
        attributes["header"] = json.dumps(header)
        if reseal:
            attributes["header_sha256"] = hashlib.sha256(attributes["header"].encode()).hexdigest()


@contextmanager
def changed(path: Path, *, reseal: bool) -> Iterator[h5py.Group]:
    """Open a committed episode for writing; afterwards bring the rows' digests up to date where asked to."""
    with h5py.File(path, "r+") as file:
        yield file["data/demo_0"]
    if reseal:
        rows = read_episode(path).rows()
        digests: NDArray[np.uint64] = np.array([row_digest(rows[place, ...]) for place in range(len(rows))], np.uint64)
        with h5py.File(path, "r+") as file:
            file["data/demo_0"][DIGEST_FIELD][:] = digests

"""Episodes of a policy that was asked ahead of time replay bit for bit, and what is changed in them is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.bundle import Bundle
from policy.chunk_source import ChunkFault, ChunkReply, ChunkRequest, ChunkSource, DelayedSource
from policy.episode_reader import read_episode
from policy.episode_schema import EpisodeSpec
from robot.errors import BadInputError
from teleop.chunk_plan import ChunkEvent
from teleop.replay_compare import compare_bundle
from teleop.replay_episode import EpisodeReplay
from teleop.station import Station
from tests.remote_bundle_bench import make_remote_bundle
from tests.replay_run import LateClock, changed, make_run
from tests.tiny_bundle import make_tiny_bundle

ASYNCHRONOUS = (("policy.mode", '"asynchronous"'), ("policy.deadline_s", "0.4"))
BUNDLE = {"chunk_length": 8, "execute_steps": 6}


class Faulty:
    """A source with drawn delays that raises, hangs and gives NaN now and then."""

    def __init__(self, station: Station, bundle: Bundle, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._faults = np.random.default_rng(seed + 1)

        def act(request: ChunkRequest) -> NDArray[np.float32]:
            return bundle.act(request.features, request.proprio)

        self._source = DelayedSource(act, lambda: float(rng.choice([0.06, 0.12, 0.15, 0.5])), hung_after_s=1.0)

    def ask(self, request: ChunkRequest) -> None:
        faults = [ChunkFault.RAISE, ChunkFault.NAN, ChunkFault.HANG] + [ChunkFault.NONE] * 9
        self._source.fault = (faults[int(self._faults.integers(len(faults)))], 0.0)
        self._source.ask(request)

    def poll(self, now_s: float) -> ChunkReply | None:
        return self._source.poll(now_s)

    def forget(self) -> None:
        self._source.forget()

    @property
    def hung(self) -> bool:
        return self._source.hung

    @property
    def failures(self) -> list[str]:
        return self._source.failures


def events_of(files: list[Path]) -> ChunkEvent:
    seen = ChunkEvent.NONE
    for file in files:
        for bits in read_episode(file).array("tick/chunk_event").tolist():
            seen |= ChunkEvent(bits)
    return seen


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_run(
        tmp_path_factory.mktemp("ahead"), None, *ASYNCHRONOUS, ("policy.simulated_delay_s", "0.12"), **BUNDLE
    )


@pytest.fixture(scope="module")
def replay() -> EpisodeReplay:
    return EpisodeReplay()


def test_a_run_replays_exactly(recorded: list[Path], replay: EpisodeReplay) -> None:
    for file in recorded:
        report = replay.verify(file)
        assert report.first == ()
        assert report.ticks > 20
    assert ChunkEvent.ASKED | ChunkEvent.TAKEN in events_of(recorded)
    column = read_episode(recorded[0]).array
    delays_s = column("tick/chunk_delay_s").astype(float)
    np.testing.assert_allclose(delays_s[np.isfinite(delays_s)], 0.12)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_with_spikes_and_faults_replays_exactly(tmp_path: Path, replay: EpisodeReplay, seed: int) -> None:
    def source(station: Station, bundle: Bundle) -> ChunkSource:
        return Faulty(station, bundle, seed=seed)

    files = make_run(tmp_path, None, *ASYNCHRONOUS, chunks=source, **BUNDLE)
    for file in files:
        assert replay.verify(file).first == ()
    seen = events_of(files)
    assert ChunkEvent.TAKEN in seen
    assert seen & (ChunkEvent.REJECTED | ChunkEvent.GIVEN_UP | ChunkEvent.FAILED | ChunkEvent.LATE)


def test_a_late_run_replays_exactly_across_the_ticks_that_it_skipped(tmp_path: Path, replay: EpisodeReplay) -> None:
    clock = LateClock(100.0, {14: 0.13, 24: 0.27, 55: 0.12})
    files = make_run(tmp_path, clock, *ASYNCHRONOUS, ("policy.simulated_delay_s", "0.12"), **BUNDLE)
    for file in files:
        assert replay.verify(file).first == ()
    assert max(int(np.diff(read_episode(file).array("tick/index").astype(int)).max()) for file in files) > 1


def test_lock_step_gives_the_same_values_again(recorded: list[Path], tmp_path: Path) -> None:
    again = make_run(tmp_path, None, *ASYNCHRONOUS, ("policy.simulated_delay_s", "0.12"), **BUNDLE)
    for old, new in zip(recorded, again, strict=True):
        one, two = read_episode(old), read_episode(new)
        for name in one.header.spec.fields():
            assert one.array(name).tobytes() == two.array(name).tobytes(), name


SPEC = EpisodeSpec(
    cameras=(("front", 32, 40), ("wrist", 32, 40)),
    proprio=(("tcp_position_m", 3), ("gripper_width_m", 1)),
    action_size=5,
    chunk_length=8,
    feature_size=6,
    joint_count=7,
    asynchronous=True,
)
OWN_FIELDS = tuple(SPEC.fields().keys() - SPEC.model_copy(update={"asynchronous": False}).fields().keys())
Rows = Callable[[Callable[[str], NDArray[Any]]], NDArray[np.bool_]]
ARRIVES: Rows = lambda column: column("tick/reply") == 1  # noqa: E731
NOTHING: Rows = lambda column: column("tick/reply") == 0  # noqa: E731
EVERY: Rows = lambda column: np.ones(len(column("tick/index")), bool)  # noqa: E731
TAKEN: Rows = lambda column: (column("tick/chunk_event") & int(ChunkEvent.TAKEN)) != 0  # noqa: E731
# field -> change, on each kind of row where it means something
PLANTED: list[tuple[str, float, Rows]] = [
    ("tick/reply", 3, ARRIVES),
    ("tick/reply", 1, NOTHING),
    ("tick/reply_tick", 1, ARRIVES),
    ("tick/reply_tick", 3, NOTHING),
    ("tick/reply_s", 1e-3, TAKEN),
    ("tick/reply_s", 1.0, ARRIVES),
    ("tick/reply_s", 5.0, NOTHING),
    ("tick/reply_chunk", 1e-6, ARRIVES),
    ("tick/reply_chunk", np.nan, TAKEN),
    ("tick/reply_chunk", 0.5, NOTHING),
    ("tick/chunk_event", 1, EVERY),
    ("tick/chunk_event", 4, EVERY),
    ("tick/chunk_delay_s", 1e-3, EVERY),
    ("tick/chunk_delays_s", 1e-3, EVERY),
    ("tick/chunk_rejected", 1, EVERY),
    ("tick/asked_tick", 1, EVERY),
    ("tick/asked_s", 1e-3, EVERY),
    ("tick/chunk", 1e-6, TAKEN),
    ("tick/chunk_tick", 1, TAKEN),
    ("tick/base", 1e-6, TAKEN),
]


@pytest.fixture
def copy(recorded: list[Path]) -> Iterator[Path]:
    path = recorded[0].with_name("planted.h5")
    shutil.copyfile(recorded[0], path)
    yield path
    path.unlink()


def test_every_field_of_requests_is_planted() -> None:
    assert {field for field, _, _ in PLANTED} >= set(OWN_FIELDS)


@pytest.mark.parametrize(
    ("field", "change", "where"), PLANTED, ids=[f"{p[0]}-{p[1]}-{i}" for i, p in enumerate(PLANTED)]
)
def test_a_changed_request_or_answer_is_found_although_the_digest_was_brought_up_to_date(
    replay: EpisodeReplay, copy: Path, field: str, change: float, where: Rows
) -> None:
    rows = np.flatnonzero(where(read_episode(copy).array))
    row = int(rows[len(rows) // 2])
    with changed(copy, reseal=True) as demo:
        value = np.array(demo[field][row])
        flat = value.reshape(-1)
        if value.dtype.kind in "iu":
            flat[-1] ^= int(change)
        else:
            flat[-1] = change if np.isnan(flat[-1]) else flat[-1] + change
        demo[field][row] = value
    assert replay.verify(copy).mismatches >= 1


def test_another_policy_is_compared_within_the_tick(recorded: list[Path], tmp_path: Path) -> None:
    run = recorded[0].parents[1]
    same = compare_bundle(run.parent / "bundle", [run])
    assert same.ticks > 5
    other = compare_bundle(make_tiny_bundle(tmp_path / "other", seed=3, **BUNDLE), [run])
    assert other.dimensions[0].from_base > 0.0
    with pytest.raises(BadInputError, match="elsewhere"):
        compare_bundle(make_remote_bundle(tmp_path / "remote"), [run])

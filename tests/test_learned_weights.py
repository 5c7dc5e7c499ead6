"""The robot's end of learning: weights come in checked, go when they fail at work, and a person may go back."""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from policy.bundle import Bundle, load_bundle
from policy.episode_header import Outcome
from policy.episode_spool import EpisodeSpool
from policy.learner_episode import EpisodeArrays, EpisodeKey
from policy.learner_link import LearnerLink
from policy.residual import zero_tensors
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder
from policy.weights import Expected, pack
from policy.weights_file import weights_of_version
from robot.errors import BadInputError
from teleop.learned_weights import LearnedWeights
from teleop.station import ResidualConfig
from tests.episodes import header
from tests.loop_bench import LoopBench
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import DIMS, tiny_tensors

ANYWHERE = "tcp://127.0.0.1:*"
LEARNER_RUN = "learner-test"
LIMITS = ResidualConfig(scale=(0.3,) * DIMS.action)
WAIT_S = 30.0


def fragile_tensors() -> dict[str, np.ndarray]:
    """Finite, and finite wherever the first feature is 0; elsewhere the first layer overflows and the output is NaN."""
    tensors = zero_tensors(DIMS, np.array(LIMITS.scale, np.float32))
    first = np.zeros((2, DIMS.observation + DIMS.action), np.float32)
    first[0, 0] = 3e38
    tensors["actor.0.weight"], tensors["actor.0.bias"] = first, np.zeros(2, np.float32)
    tensors["actor.out.weight"] = np.zeros((DIMS.action, 2), np.float32)
    return tensors


def episode(run_id: str) -> EpisodeArrays:
    """Ten ticks of the policy whose first feature is 0."""
    rng = np.random.default_rng(0)
    draw = {
        name: rng.uniform(-0.5, 0.5, (10, width)).astype(np.float32)
        for name, width in (("features", DIMS.features), ("proprio", DIMS.proprio), ("base", DIMS.action))
    }
    draw["features"][:, 0] = 0.0
    nothing = np.zeros(10, bool)
    return EpisodeArrays(
        key=EpisodeKey(run_id, 0, 0),
        outcome=Outcome.TIMEOUT,
        complete=True,
        open_loop=False,
        demonstration=False,
        bundle_sha256="0" * 64,
        index=np.arange(10),
        executed=draw["base"],
        human=np.full((10, DIMS.action), np.nan, np.float32),
        engaged=nothing,
        source=np.zeros(10, np.int8),
        rewards=np.zeros(10, np.float32),
        terminated=nothing,
        truncated=np.arange(10) == 9,
        **draw,
    )


class Bench:
    """A run folder, its weights and a learner's link, on one machine."""

    def __init__(self, stack: ExitStack, folder: Path, bundle: Bundle) -> None:
        self._stack, self.bundle = stack, bundle
        self.run = RunFolder.create(folder / "run", header().provenance)
        self.learner = stack.enter_context(LearnerLink(ANYWHERE))
        self.weights = self.start()

    def start(
        self, start: bytes | None = None, newest: bytes | None = None, limits: ResidualConfig = LIMITS
    ) -> LearnedWeights:
        spool = EpisodeSpool(self.run.episodes, self.run.run_id)
        self.link = self._stack.enter_context(RobotLink(self.learner.endpoint, run_id=self.run.run_id, spool=spool))
        return LearnedWeights(
            self.link, self.run, Expected.of(self.bundle.manifest, limits), spool=spool, lock_step=False,
            start=start, newest=newest, runs=(self.run.run_id, LEARNER_RUN),
        )  # fmt: skip

    def message(self, version: int, tensors: dict[str, np.ndarray] | None = None) -> bytes:
        return pack(
            version=version,
            run_id=LEARNER_RUN,
            bundle_sha256=self.bundle.sha256,
            dims=DIMS,
            tensors=tiny_tensors(seed=version) if tensors is None else tensors,
        )

    def give(self, version: int, tensors: dict[str, np.ndarray] | None = None) -> None:
        self.learner.publish(version, self.message(version, tensors))

    def until(self, done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < deadline_s, (self.link.status, self.learner.problem, self.weights.notice)
            self.weights.refresh()
            for received in self.learner.poll(0.005):
                self.learner.acknowledge(received, "stored")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), "cpu")


@pytest.fixture
def bench(tmp_path: Path, bundle: Bundle) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = Bench(stack, tmp_path, bundle)
        made.weights.after_episode(episode(made.run.run_id))
        yield made


@pytest.mark.parametrize("answers", [True, False])
def test_a_run_that_ends_after_a_long_commit_still_waits_for_a_learner_that_answers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    bench.until(lambda: bench.link.status.stored == 1)
    link, poll, looks = bench.link, bench.link.poll, itertools.count()
    step_s = 0.0 if answers else 0.1  # time flies where nobody answers

    def beside_the_learner() -> None:
        poll()
        for received in bench.learner.poll() if answers else []:
            bench.learner.acknowledge(received, "stored")

    monkeypatch.setattr(link, "_now_s", lambda: time.monotonic() + 10.0 + step_s * next(looks))  # of the commit
    monkeypatch.setattr(link, "poll", beside_the_learner)
    last = episode(bench.run.run_id)
    bench.weights.after_episode(replace(last, key=EpisodeKey(bench.run.run_id, 1, 0)))
    assert not link.status.connected
    bench.weights.finish(2)
    assert link.status.stored == (2 if answers else 1)
    assert bench.weights.lacking() == (
        "" if answers else "1 episodes have not reached the learner (it does not answer); --resume sends them"
    )


def test_weights_that_fail_at_work_give_way_to_those_before_and_the_learner_hears(bench: Bench) -> None:
    bench.give(1)
    bench.until(lambda: bench.weights.version == 1)
    bench.give(2, fragile_tensors())
    bench.until(lambda: bench.weights.version == 2)  # they pass on what was recorded
    seen = np.full(DIMS.features, 2.0, np.float32)
    with np.errstate(all="ignore"):
        given = bench.weights.head.residual(seen, np.zeros(4, np.float32), np.zeros(5, np.float32))
    assert np.isnan(given).all()
    bench.weights.distrust()
    assert bench.weights.version == 2  # the tick that found out is recorded with the weights that it had
    bench.until(lambda: bench.learner.withdrawn == 1)
    assert (bench.weights.version, bench.weights.withdrawn) == (1, 1)
    assert "robot took weights 2 back" in bench.learner.problem
    assert set(bench.weights.taken_over()) == {1, 2}
    bench.give(3)
    bench.until(lambda: bench.weights.version == 3)


def test_where_all_fail_the_base_drives_alone(bench: Bench) -> None:
    bench.give(1, fragile_tensors())
    bench.until(lambda: bench.weights.version == 1)
    bench.weights.distrust()
    bench.weights.refresh()
    assert bench.weights.version == 0
    assert not bench.weights.head.residual(np.ones(6, np.float32), np.ones(4, np.float32), np.ones(5, np.float32)).any()
    bench.weights.distrust()  # whatever else is wrong then
    bench.weights.refresh()
    assert bench.weights.version == 0


def full_disk(path: Path, data: bytes, *, durable: bool = True) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_weights_that_cannot_be_kept_are_refused_and_the_run_goes_on_with_those_in_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.give(1)
    bench.until(lambda: bench.weights.version == 1)
    head, sha256 = bench.weights.head, bench.weights.sha256
    with monkeypatch.context() as full:
        full.setattr("policy.run_folder.write_whole", full_disk)
        bench.give(2)
        bench.until(lambda: bench.weights.refused == 1)
    assert "weights 2 refused: " in bench.weights.notice
    assert "No space left on device" in bench.weights.notice
    assert (bench.weights.version, bench.weights.head, bench.weights.sha256) == (1, head, sha256)
    bench.give(3)
    bench.until(lambda: bench.weights.version == 3)


def test_weights_that_fail_at_work_give_way_though_the_disk_is_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.give(1, fragile_tensors())
    bench.until(lambda: bench.weights.version == 1)
    bench.weights.distrust()
    with monkeypatch.context() as full:
        full.setattr("policy.run_folder.write_whole", full_disk)
        bench.weights.refresh()
    assert bench.weights.version == 0
    assert "weights 1 gave no numbers; weights 0 in force again" in bench.weights.notice
    assert "No space left on device" in bench.weights.notice


def test_a_message_that_came_as_another_version_is_refused(bench: Bench) -> None:
    bench.learner.publish(5, bench.message(4))
    bench.until(lambda: bench.learner.refused == 1)
    assert bench.weights.version == 0
    assert "came as version 5 and are another" in bench.learner.problem


def test_a_person_who_goes_back_keeps_the_older_weights_until_new_ones_are_made(bench: Bench) -> None:
    for version in (1, 2, 3):
        bench.give(version)
        bench.until(lambda version=version: bench.weights.version == version)  # type: ignore[misc]
    newest = bench.run.newest_weights()
    older = weights_of_version(bench.run.path, 2).read_bytes()
    bench.weights = bench.start(start=older, newest=newest)
    bench.weights.after_episode(episode(bench.run.run_id))
    assert bench.weights.version == 2
    bench.until(lambda: bench.link.status.stored == 1)  # long after the hello, to which 3 would have been the answer
    assert bench.weights.version == 2
    bench.give(4)
    bench.until(lambda: bench.weights.version == 4)


def test_a_version_that_the_run_never_had_is_one_line(bench: Bench) -> None:
    bench.give(7)
    bench.until(lambda: bench.weights.version == 7)
    with pytest.raises(BadInputError, match=r"has 0 weights of version 6 \(there are: 0, 7\)"):
        weights_of_version(bench.run.path, 6)


def test_the_loop_tells_of_a_residual_that_is_no_number_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    with LoopBench(make_tiny_bundle(tmp_path / "bundle")) as bench:
        monkeypatch.setattr(bench.weights, "distrust", lambda: told.append(bench.weights.version))
        bench.loop.wait_armed()
        bench.episode()
        assert told == []
        head = bench.weights.head

        class Fails:
            """Gives NaN from sound observations."""

            scale, heads, dims = head.scale, head.heads, head.dims

            def corrected(self, *seen: object, judged: bool) -> tuple[np.ndarray, np.ndarray]:
                return np.full(DIMS.action, np.nan, np.float32), np.zeros((0, 2), np.float32)

        bench.weights.next = Fails(), 9  # type: ignore[assignment]
        bench.episode()
    assert told
    assert set(told) == {9}


def test_weights_that_failed_or_were_left_by_hand_do_not_come_back_when_the_run_goes_on(bench: Bench) -> None:
    for version in (1, 2):
        bench.give(version)
        bench.until(lambda version=version: bench.weights.version == version)  # type: ignore[misc]
    bench.weights.distrust()
    bench.weights.refresh()
    newest, last = bench.run.newest_weights(), bench.run.weights_in_force()
    one, two = (bench.run.weights(bench.run.weights_sha256(version)) for version in (1, 2))
    assert (last, newest) == (one, two)
    assert bench.start(start=last, newest=newest).version == 1
    bench.start(start=newest, newest=newest)
    assert bench.run.weights_in_force() == newest
    bench.start(start=last, newest=newest)  # by hand
    assert bench.run.weights_in_force() == last


def test_a_run_goes_on_below_a_bound_that_was_lowered_since(bench: Bench) -> None:
    bench.give(3)
    bench.until(lambda: bench.weights.version == 3)
    newest = bench.run.newest_weights()
    lower = ResidualConfig(scale=(0.1,) * DIMS.action)
    bench.weights = bench.start(start=bench.message(1, tiny_tensors(scale=0.1)), newest=newest, limits=lower)
    bench.weights.after_episode(episode(bench.run.run_id))
    assert bench.weights.version == 1
    bench.give(4, tiny_tensors(scale=0.1))
    bench.until(lambda: bench.weights.version == 4)


def saturated_tensors() -> dict[str, np.ndarray]:
    tensors = tiny_tensors()
    tensors["actor.out.bias"] = np.full(DIMS.action, 50.0, np.float32)
    return tensors


@pytest.mark.parametrize("resumes", [False, True])
def test_a_start_that_is_refused_on_what_was_recorded_gives_way_to_a_residual_of_zero(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    bench.weights = bench.start(start=bench.message(1, saturated_tensors()))
    if resumes:
        monkeypatch.setattr(bench.link, "look", lambda: [EpisodeKey(bench.run.run_id, 0, 0)])
        monkeypatch.setattr(EpisodeSpool, "read", lambda spool, number: episode(bench.run.run_id))
        bench.weights.resume()
    else:
        bench.weights.after_episode(episode(bench.run.run_id))
    weights = bench.weights
    assert (weights.version, weights.withdrawn) == (0, 1)
    assert not weights.head.residual(*(np.ones(size, np.float32) for size in (6, 4, 5))).any()
    assert "weights 1 refused: weights refused (saturated)" in weights.notice
    assert "weights 0 in force again" in weights.notice
    assert bench.run.weights_in_force() == weights.message
    bench.give(2)
    bench.until(lambda: bench.weights.version == 2)


def test_ticks_of_a_driver_that_gave_no_numbers_judge_no_weights(bench: Bench) -> None:
    bench.weights = bench.start(start=bench.message(1))
    found = episode(bench.run.run_id)
    proprio = found.proprio.copy()
    proprio[4] = np.nan
    bench.weights.after_episode(replace(found, proprio=proprio))
    assert bench.weights.version == 1
    bench.give(2)
    bench.until(lambda: bench.weights.version == 2)


class LockStepLink:
    """Answers each question for weights; remembers what it was told."""

    def __init__(self, messages: dict[int, bytes]) -> None:
        self.messages, self.told = messages, list[tuple[object, ...]]()

    def begin_at(self, version: int, *, seen: int | None = None) -> None:
        self.told.append(("begin", version, seen))

    def send_episode(self, episode: EpisodeArrays) -> None:
        pass

    def look(self) -> list[EpisodeKey]:
        return []

    def wait_weights(self, version: int, timeout_s: float) -> bytes | None:
        return self.messages.get(version)

    def answer(self, version: int, *, accepted: bool, reason: str = "") -> None:
        self.told.append((version, accepted))

    def withdraw(self, version: int, *, back_to: int, reason: str) -> None:
        self.told.append(("withdrawn", version, back_to))


@pytest.mark.parametrize("early", [False, True])
def test_lock_step_leaves_a_start_that_is_refused_at_the_same_tick_whenever_the_recorder_commits(
    bench: Bench, early: bool
) -> None:
    link, folder = LockStepLink({2: bench.message(2)}), bench.run
    spool = EpisodeSpool(folder.episodes, folder.run_id)
    weights = LearnedWeights(
        cast("RobotLink", link), folder, Expected.of(bench.bundle.manifest, LIMITS), spool=spool,
        lock_step=True, start=bench.message(1, saturated_tensors()), runs=(folder.run_id, LEARNER_RUN),
    )  # fmt: skip
    weights.before_episode(0)
    if early:
        weights.after_episode(episode(folder.run_id))
    weights.before_episode(1)
    if not early:
        weights.after_episode(episode(folder.run_id))
    weights.refresh()
    assert weights.version == 1
    assert "weights 1 refused" in weights.notice
    weights.before_episode(2)
    assert weights.version == 0
    weights.before_episode(3)
    assert weights.version == 2


@pytest.mark.parametrize("ends", [False, True])
def test_lock_step_withdraws_what_failed_and_not_what_comes_next(bench: Bench, ends: bool) -> None:
    messages = {1: bench.message(1, fragile_tensors()), 2: bench.message(2)}
    link, folder = LockStepLink(messages), bench.run
    spool = EpisodeSpool(folder.episodes, folder.run_id)
    weights = LearnedWeights(
        cast("RobotLink", link), folder, Expected.of(bench.bundle.manifest, LIMITS), spool=spool,
        lock_step=True, start=None, runs=(folder.run_id, LEARNER_RUN),
    )  # fmt: skip
    weights.after_episode(episode(folder.run_id))
    weights.before_episode(2)
    assert weights.version == 1
    weights.distrust()  # on the last tick
    if ends:
        weights.finish(2)
    else:
        weights.before_episode(3)
        weights.refresh()
    assert weights.version == 2
    assert link.told[-3:] == [(1, True), ("withdrawn", 1, 0), (2, True)]


def test_lock_step_goes_on_from_older_weights_without_waiting_for_those_that_failed(bench: Bench) -> None:
    link, folder = LockStepLink({3: bench.message(3)}), bench.run
    spool = EpisodeSpool(folder.episodes, folder.run_id)
    weights = LearnedWeights(
        cast("RobotLink", link), folder, Expected.of(bench.bundle.manifest, LIMITS), spool=spool,
        lock_step=True, start=bench.message(1), newest=bench.message(2), runs=(folder.run_id, LEARNER_RUN),
    )  # fmt: skip
    weights.after_episode(episode(folder.run_id))
    weights.before_episode(3)
    assert (weights.version, link.told) == (1, [("begin", 1, 2)])
    weights.before_episode(4)
    assert weights.version == 3

"""The learner as a process: a robot in lock-step gets the same weights each time, whatever dies in between."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.learner_process import make_learner_of, run_learner
from policy.learner_settings import FreeRunning, LearnerSettings
from policy.learner_status import LearnerStatus
from policy.learner_store import EpisodeStore
from policy.robot_link import RESEND_AFTER_S, RobotLink
from robot.errors import BadInputError
from robot.process_board import ProcessBoard
from tests.episodes import header
from tests.learner_episodes import made_up
from tests.learner_stand_in import make_stand_in
from tests.test_learner_episode import committed
from tests.test_learner_link import Wall
from tests.test_learner_training import content, settings

WAIT_S = 20.0


@dataclass
class Running:
    """A learner in a thread."""

    stop: threading.Event = field(default_factory=threading.Event)
    bound: threading.Event = field(default_factory=threading.Event)
    gathering: threading.Event = field(default_factory=threading.Event)
    statuses: list[LearnerStatus] = field(default_factory=list)

    def report(self, status: LearnerStatus) -> None:
        self.statuses.append(status)
        if status.phase == "gathering":
            self.gathering.set()
        self.bound.set()

    @property
    def endpoint(self) -> str:
        assert self.bound.wait(WAIT_S)
        endpoint = self.statuses[0].endpoint
        assert endpoint is not None
        return endpoint


@contextmanager
def running(chosen: LearnerSettings) -> Iterator[Running]:
    learner = Running()

    def work() -> None:
        run_learner(chosen, stop=learner.stop.is_set, make_learner=make_stand_in, report=learner.report)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield learner
    finally:
        learner.stop.set()
        thread.join(WAIT_S)


def drive(robot: RobotLink, first: int, last: int) -> list[str]:
    """Episodes `first` to `last` with a lag of one; what each version holds."""
    seen = []
    for number in range(first, last):
        robot.send_episode(made_up(number))
        if number > first:
            message = robot.wait_weights(number, WAIT_S)
            assert message is not None, robot.status
            robot.answer(number, accepted=True)
            seen.append(content(message))
    message = robot.wait_weights(last, WAIT_S)
    assert message is not None, robot.status
    robot.answer(last, accepted=True)
    return [*seen, content(message)]


def test_same_seed_same_weights_with_a_lag_of_one(tmp_path: Path) -> None:
    seen = []
    for folder in ("first", "second"):
        with running(settings(tmp_path / folder)) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
            seen.append(drive(robot, 0, 5))
            assert robot.wait_stored(WAIT_S)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 5
    assert (learner.statuses[-1].phase, learner.statuses[-1].updates) == ("stopped", 20)


def test_a_learner_with_too_little_to_begin_with_says_so(tmp_path: Path) -> None:
    chosen = settings(tmp_path, min_transitions=1_000_000)
    with running(chosen) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        drive(robot, 0, 2)
        assert learner.gathering.wait(WAIT_S)
    assert learner.statuses[-1].updates == 0


def test_learner_started_again_goes_on_where_it_was(tmp_path: Path) -> None:
    with running(settings(tmp_path / "whole")) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        whole = drive(robot, 0, 6)
    with ExitStack() as stack:
        with running(settings(tmp_path / "broken")) as learner:
            endpoint = learner.endpoint
            robot = stack.enter_context(RobotLink(endpoint, run_id="run-1"))
            seen = drive(robot, 0, 3)
        robot.send_episode(made_up(3))  # nobody is there
        assert robot.status.waiting == 1
        stack.enter_context(running(settings(tmp_path / "broken", endpoint=endpoint)))
        fourth = robot.wait_weights(4, WAIT_S)
        assert fourth is not None, robot.status
        robot.answer(4, accepted=True)
        seen += [content(fourth), *drive(robot, 4, 6)]
    assert seen == whole


def test_free_running_learner_stops_at_its_cap_and_tells_what_it_did(tmp_path: Path) -> None:
    free = FreeRunning(min_updates_per_tick=0.0, max_updates_per_tick=1.0, publish_every_updates=5)
    with running(settings(tmp_path, schedule=free)) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        robot.send_episode(made_up(0))
        taken = 0
        while taken < 3:  # versions at 5, 10 and 12 updates, of which the robot may miss all but the last
            assert robot.wait_newer(WAIT_S), robot.status
            newest = robot.take_weights()
            assert newest is not None
            taken = newest[0]
            robot.answer(taken, accepted=False, reason="saturated")
        while learner.statuses[-1].refused == 0:
            assert not robot.wait_newer(0.1)
    last = learner.statuses[-1]
    assert (last.updates, last.version, last.episodes, last.transitions, last.guided) == (12, 3, 1, 12, 4)
    assert "saturated" in last.problem
    assert "12 updates" in last.line()
    assert "\n" not in last.line()
    assert last.figures is not None
    assert last.figures["loss"] > 0.0


def test_robot_that_begins_with_weights_in_force_gets_only_newer_ones(tmp_path: Path) -> None:
    free = FreeRunning(min_updates_per_tick=0.0, max_updates_per_tick=1.0, publish_every_updates=5)
    with running(settings(tmp_path, schedule=free)) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        robot.begin_at(900)
        assert not robot.wait_newer(0.2)  # the learner has heard of them by now
        robot.send_episode(made_up(0))
        assert robot.wait_newer(WAIT_S), robot.status
        newest = robot.take_weights()
        assert newest is not None
        assert newest[0] > 900


def test_an_episode_that_the_full_disk_did_not_take_is_not_acknowledged_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, add = threading.Event(), EpisodeStore.add
    full = threading.Event()
    full.set()

    def add_if_there_is_room(store: EpisodeStore, *arguments: Any) -> int:
        if full.is_set():
            refused.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(store, *arguments)

    monkeypatch.setattr(EpisodeStore, "add", add_if_there_is_room)
    wall = Wall()
    with running(settings(tmp_path)) as learner, RobotLink(learner.endpoint, run_id="run-1", now_s=wall) as robot:
        robot.send_episode(made_up(0))
        while not refused.is_set():
            robot.wait_newer(0.01)
        assert not robot.wait_stored(0.2)
        assert robot.status.waiting == 1
        full.clear()
        wall.ahead_s += RESEND_AFTER_S
        assert robot.wait_stored(WAIT_S)
    assert learner.statuses[-1].episodes == 1
    assert "free some space" in learner.statuses[-1].problem


def test_a_checkpoint_that_cannot_be_written_ends_nothing_and_the_last_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def full(*arguments: Any) -> None:
        tried.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chosen = settings(tmp_path, checkpoint_every_s=0.01)
    with running(chosen) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        drive(robot, 0, 1)
        with monkeypatch.context() as patched:
            patched.setattr("policy.learner_checkpoint.save_checkpoint", full)
            assert tried.wait(WAIT_S)
            before = (tmp_path / "checkpoint.safetensors").read_bytes()
            drive(robot, 1, 3)  # it learns on
            assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert learner.statuses[-1].updates == 12
    assert learner.statuses[-1].problem == ""  # it was written at the end


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"feature_size": 7}, "start the learner with the robot's bundle"),
        ({"bundle_sha256": "2" * 64}, "under bundle 0"),
    ],
)
def test_robot_of_another_bundle_is_told(tmp_path: Path, other: dict[str, Any], told: str) -> None:
    chosen = settings(tmp_path, **other)
    # the stand-in is made for 5 features and is never asked
    with running(chosen) as learner, RobotLink(learner.endpoint, run_id="run-1") as robot:
        robot.send_episode(made_up(0))
        assert robot.wait_stored(WAIT_S)
        assert robot.status.refused == 1
        assert told in robot.status.problem


def test_offline_learner_starts_from_logged_episodes_and_ends(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    committed(tmp_path / "log", 0)
    committed(tmp_path / "log", 1)
    sizes = {"proprio_size": 4, "action_size": 4, "bundle_sha256": header().bundle_sha256}
    logged = {"demonstrations": (tmp_path / "log",), "offline_updates": 3}
    chosen = settings(tmp_path / "state", endpoint=None, **sizes, **logged)
    reports: list[LearnerStatus] = []
    last = run_learner(chosen, stop=lambda: False, make_learner=make_stand_in, report=reports.append)
    assert (last.updates, last.version, last.episodes) == (3, 1, 2)
    assert last.guided == last.transitions > 0
    again = run_learner(chosen, stop=lambda: False, make_learner=make_stand_in, report=reports.append)
    assert (again.updates, again.version, again.transitions) == (3, 1, last.transitions)
    assert (tmp_path / "state" / "weights.safetensors").stat().st_size > 100


@pytest.mark.parametrize("named", ["episodes", "demonstrations"])
@pytest.mark.parametrize("late", ["episode", "label"])
def test_a_learner_that_goes_on_does_not_leave_out_logged_episodes_without_a_word(
    tmp_path: Path, named: str, late: str
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    first = committed(log, 0)
    sizes = {"proprio_size": 4, "action_size": 4, "bundle_sha256": header().bundle_sha256}
    chosen = settings(tmp_path / "state", endpoint=None, **sizes, **{named: (log,)})
    run_learner(chosen, stop=lambda: False, make_learner=make_stand_in)
    run_learner(chosen, stop=lambda: False, make_learner=make_stand_in)  # the same again goes on
    if late == "episode":
        committed(log, 1)
    else:
        label_episode(first, Outcome.FAILURE, LabelSource.PERSON)
    told = "episode 1 revision 0; choose" if late == "episode" else "episode 0 revision 1; choose"
    with pytest.raises(BadInputError, match=f"did not start from run demo-0a1b {told} another --state") as error:
        run_learner(chosen, stop=lambda: False, make_learner=make_stand_in)
    assert "\n" not in str(error.value)
    without = chosen.model_copy(update={named: ()})
    assert run_learner(without, stop=lambda: False, make_learner=make_stand_in).episodes == 1


@pytest.mark.parametrize("named", ["episodes", "demonstrations"])
def test_logged_episodes_of_another_bundle_of_the_same_sizes_are_refused(tmp_path: Path, named: str) -> None:
    (tmp_path / "log").mkdir()
    committed(tmp_path / "log", 0)
    sizes = {"proprio_size": 4, "action_size": 4}
    chosen = settings(tmp_path / "state", endpoint=None, **sizes, **{named: (tmp_path / "log",)})
    told = r"run demo-0a1b episode 0: was recorded under bundle 222222222222 \(allowed 000000000000"
    with pytest.raises(BadInputError, match=told) as error:
        run_learner(chosen, stop=lambda: False, make_learner=make_stand_in)
    assert "\n" not in str(error.value)
    assert len(EpisodeStore(tmp_path / "state" / "episodes")) == 0


def test_too_few_episodes_to_start_from_is_one_line(tmp_path: Path) -> None:
    chosen = settings(tmp_path, endpoint=None, offline_updates=3)
    with pytest.raises(BadInputError, match="give 0 transitions"):
        run_learner(chosen, stop=lambda: False, make_learner=make_stand_in)


def test_two_learners_on_one_folder_or_port_are_refused(tmp_path: Path) -> None:
    with running(settings(tmp_path / "one")) as learner:
        endpoint = learner.endpoint
        with pytest.raises(BadInputError, match="another learner works here"):
            run_learner(settings(tmp_path / "one"), stop=lambda: True, make_learner=make_stand_in)
        with pytest.raises(BadInputError, match="already in use"):
            run_learner(settings(tmp_path / "two", endpoint=endpoint), stop=lambda: True, make_learner=make_stand_in)


@pytest.mark.parametrize(
    ("field_name", "value", "told"),
    [
        ("q_filtre", True, "q_filtre: Unexpected"),
        ("approval_weight", "high", "approval_weight: Input should be a valid number"),
        ("critic_subset", 5, "critic_subset is 5"),
    ],
)
def test_a_wrong_field_of_the_algorithm_is_named(tmp_path: Path, field_name: str, value: object, told: str) -> None:
    algorithm = {"scale": [0.1, 0.1], field_name: value}
    with pytest.raises(BadInputError, match=told) as error:
        make_learner_of(settings(tmp_path).model_copy(update={"algorithm": algorithm}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("taken", "status"), [(False, 2), (True, 1)])
def test_under_a_supervisor_what_no_retry_can_cure_is_refused_and_what_one_can_is_not(
    tmp_path: Path, taken: bool, status: int
) -> None:
    chosen, board = settings(tmp_path / "state"), ProcessBoard.new(2)
    if not taken:
        (tmp_path / "state" / "lock").mkdir()  # in the way of its own file
    path = tmp_path / "settings.json"
    path.write_text(chosen.model_dump_json())
    words = [sys.executable, "-m", "policy.learner_process", "--settings", str(path), "--board", str(board.file)]
    words += ["--place", "1", "--parent", str(os.getpid())]
    with ExitStack() as stack:
        stack.callback(board.close)
        if taken:  # by the learner of a run that was killed and gone on with at once
            fcntl.flock(stack.enter_context((tmp_path / "state" / "lock").open("w")), fcntl.LOCK_EX)
        done = subprocess.run(words, pass_fds=[board.file], capture_output=True, text=True, check=False)
        assert (done.returncode, int(board.places["ready"][1])) == (status, 0)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert ("another learner works here" in done.stderr) == taken


def test_a_learner_tells_its_supervisor_that_it_works_once_it_has_taken_all_that_it_was_given(tmp_path: Path) -> None:
    board = ProcessBoard.new(2)
    path = tmp_path / "settings.json"
    path.write_text(settings(tmp_path / "state", endpoint="tcp://127.0.0.1:*").model_dump_json())
    words = [sys.executable, "-m", "tests.learner_stand_in_process", "--settings", str(path)]
    words += ["--board", str(board.file), "--place", "1", "--parent", str(os.getpid())]
    with subprocess.Popen(words, pass_fds=[board.file]) as learner:
        ends_s = time.monotonic() + WAIT_S
        while not board.places["ready"][1]:
            assert learner.poll() is None
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        assert (tmp_path / "state" / "lock").exists()
        learner.terminate()
    board.close()
    assert learner.returncode == 0

"""Episodes wait on the robot's disk: whoever was started anew or lost its own, the learner ends up with all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from policy import learner_messages as wire
from policy.episode_commit import commit_episode
from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_spool import EpisodeSpool
from policy.episode_writer import EpisodeWriter
from policy.learner_episode import EpisodeKey, of_episode
from policy.learner_link import LearnerLink
from policy.learner_messages import EpisodeMessage
from policy.learner_training import Training
from policy.robot_link import RobotLink
from tests.episodes import header
from tests.learner_stand_in import make_stand_in
from tests.test_learner_episode import committed
from tests.test_learner_training import drain, settings

ANYWHERE = "tcp://127.0.0.1:*"
RUN = "demo-0a1b"  # of `tests.episodes.header`
WAIT_S = 30.0
SIZES = {"proprio_size": 4, "action_size": 4, "bundle_sha256": header().bundle_sha256}


class Learner:
    """A link and a training on a folder, as `policy.learner_process` puts them together."""

    def __init__(self, state: Path, endpoint: str = ANYWHERE) -> None:
        self.came: list[EpisodeKey] = []
        chosen = settings(state, **SIZES)
        self.training = Training(chosen, make_stand_in(chosen))
        self.link = LearnerLink(endpoint)
        self.link.know(self.training.newest_revision)

    def work(self) -> None:
        for received in self.link.poll(0.005):
            self.came.append(received.episode.key)
            self.link.acknowledge(received, self.training.accept(received.episode, received.payload))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with six committed episodes."""
    folder = tmp_path / "episodes"
    folder.mkdir()
    for number in range(6):
        committed(folder, number)
    return folder


def robot_of(run: Path, endpoint: str, **options: object) -> RobotLink:
    return RobotLink(endpoint, run_id=RUN, spool=EpisodeSpool(run, RUN), **options)  # type: ignore[arg-type]


def until(done: Callable[[], bool], robot: RobotLink, learner: Learner) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s, (robot.status, learner.link.problem)
        robot.read_ahead(0.05)
        learner.work()


def stored(state: Path) -> list[tuple[int, int]]:
    """(episode, revision) in the order in which they came to the learner's disk."""
    found = []
    for path in sorted((state / "episodes").glob("*.msgpack")):
        message = wire.unpack_robot(path.read_bytes())
        assert isinstance(message, EpisodeMessage)
        found.append((message.episode, message.revision))
    return found


def settled(robot: RobotLink, count: int) -> Callable[[], bool]:
    return lambda: robot.status.waiting == 0 and robot.status.stored == count


def test_a_look_finds_what_is_new_and_what_has_a_new_label(run: Path) -> None:
    spool = EpisodeSpool(run, RUN)
    assert spool.look() == [EpisodeKey(RUN, number, 0) for number in range(6)]
    assert spool.look() == []
    path = read_episode(latest_revisions(run)[2].path).path
    label_episode(path, Outcome.FAILURE, LabelSource.PERSON)
    committed(run, 6)
    assert spool.look() == [EpisodeKey(RUN, 2, 1), EpisodeKey(RUN, 6, 0)]
    assert spool.read(2).outcome is Outcome.FAILURE


def test_a_file_that_is_no_episode_and_episodes_of_another_run_are_left_out(run: Path) -> None:
    (run / "broken.h5").write_bytes(b"nothing")
    spool = EpisodeSpool(run, "another-run")
    assert spool.look() == []
    assert "broken.h5" in spool.problem
    assert len(EpisodeSpool(run, RUN).look()) == 6


def test_an_episode_killed_before_its_first_rows_is_nothing_to_send(run: Path, tmp_path: Path) -> None:
    with EpisodeWriter(run, header(6)) as writer:
        writer.flush()
        writer.abandon()
    empty = commit_episode(next(run.glob("*.partial"))).path
    assert of_episode(read_episode(empty)).ticks == 0
    assert [key.episode for key in EpisodeSpool(run, RUN).look()] == list(range(6))


def test_what_a_robot_sends_comes_from_its_disk_in_order(run: Path, tmp_path: Path, stack: ExitStack) -> None:
    learner = Learner(tmp_path / "state")
    stack.enter_context(learner.link)
    robot = stack.enter_context(robot_of(run, learner.link.endpoint))
    assert len(robot.look()) == 6
    until(settled(robot, 6), robot, learner)
    assert stored(tmp_path / "state") == [(number, 0) for number in range(6)]


def test_a_robot_started_anew_sends_only_what_the_learner_lacks(run: Path, tmp_path: Path, stack: ExitStack) -> None:
    learner = Learner(tmp_path / "state")
    stack.enter_context(learner.link)
    for number in (0, 1, 3):
        learner.training.accept(of_episode(read_episode(sorted(run.glob("*.h5"))[number])))
    with robot_of(run, learner.link.endpoint) as robot:
        robot.look()
        until(settled(robot, 6), robot, learner)
    assert [key.episode for key in learner.came] == [2, 4, 5]
    second = stack.enter_context(robot_of(run, learner.link.endpoint))
    second.look()
    until(settled(second, 6), second, learner)
    assert [key.episode for key in learner.came] == [2, 4, 5]


def test_a_learner_that_lost_its_disk_gets_all_again(run: Path, tmp_path: Path, stack: ExitStack) -> None:
    state = tmp_path / "state"
    first = Learner(state)
    with first.link:
        endpoint = first.link.endpoint
        robot = stack.enter_context(robot_of(run, endpoint))
        robot.look()
        until(settled(robot, 6), robot, first)
    shutil.rmtree(state)
    second = Learner(state, endpoint)
    stack.enter_context(second.link)
    until(lambda: len(second.came) == 6 and robot.status.waiting == 0, robot, second)
    assert stored(state) == [(number, 0) for number in range(6)]


def test_more_than_fits_in_memory_waits_on_the_disk(run: Path, tmp_path: Path, stack: ExitStack) -> None:
    one = len(wire.pack(wire.episode_message(of_episode(latest_revisions(run)[0]))))
    learner = Learner(tmp_path / "state")
    with learner.link:
        endpoint = learner.link.endpoint
    robot = stack.enter_context(robot_of(run, endpoint, max_outbox_bytes=2 * one))
    for episode in latest_revisions(run):  # nobody is there
        robot.send_episode(of_episode(episode))
    assert (robot.status.waiting, robot.status.dropped) == (6, 0)
    assert sum(entry.payload is not None for entry in robot._outbox.values()) == 2
    late = Learner(tmp_path / "state", endpoint)
    stack.enter_context(late.link)
    until(settled(robot, 6), robot, late)
    assert stored(tmp_path / "state") == [(number, 0) for number in range(6)]
    assert robot.status.dropped == 0


def test_an_episode_that_cannot_be_read_any_more_holds_up_no_other(run: Path, tmp_path: Path, stack: ExitStack) -> None:
    learner = Learner(tmp_path / "state")
    stack.enter_context(learner.link)
    robot = stack.enter_context(robot_of(run, learner.link.endpoint))
    robot.look()
    sorted(run.glob("*.h5"))[1].write_bytes(b"")
    until(settled(robot, 5), robot, learner)
    assert [key.episode for key in learner.came] == [0, 2, 3, 4, 5]
    assert robot.status.dropped == 1
    assert "the file is empty" in robot.status.problem


def test_a_corrected_label_replaces_the_old_one_in_the_buffer_and_after_restarts(run: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    learner = Learner(state)
    with learner.link, robot_of(run, learner.link.endpoint) as robot:
        robot.look()
        until(settled(robot, 6), robot, learner)
        drain(learner.training)
        before = learner.training.buffer_size
        # the robot's own recording goes on while a person corrects a label
        label_episode(sorted(run.glob("*.h5"))[3], Outcome.RERECORD, LabelSource.PERSON)
        robot.look()
        until(lambda: learner.came[-1] == (RUN, 3, 1) and robot.status.waiting == 0, robot, learner)
        drain(learner.training)
        learner.training.save()
        after = learner.training.buffer_size
    assert after < before
    again = Learner(state)  # from the checkpoint
    assert again.training.buffer_size == after
    assert again.training.newest_revision(RUN, 3) == 1
    with again.link, robot_of(run, again.link.endpoint) as robot:
        robot.look()
        until(settled(robot, 6), robot, again)
    assert again.came == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_an_older_revision_that_comes_late_is_known_and_changes_nothing(
    run: Path, tmp_path: Path, restarted: bool, saved: bool
) -> None:
    path = sorted(run.glob("*.h5"))[0]
    old = of_episode(read_episode(path))
    label_episode(path, Outcome.RERECORD, LabelSource.PERSON)
    new = of_episode(read_episode(path))
    state = tmp_path / "state"
    learner = Learner(state)
    assert learner.training.accept(new) == "stored"
    drain(learner.training)
    if saved:
        learner.training.save()
    if restarted:
        learner = Learner(state)
        drain(learner.training)
    assert learner.training.accept(old) == "known"
    drain(learner.training)
    assert learner.training.buffer_size == 0  # a rerecorded episode teaches nothing
    assert stored(state) == [(0, 1)]
    assert Learner(state).training.newest_revision(RUN, 0) == 1


def test_a_run_of_many_episodes_is_asked_for_in_pages_of_bounded_size(stack: ExitStack) -> None:
    class Long:
        """Nine thousand episodes, of which only the last is ever read."""

        problem = ""
        looked = False

        def look(self) -> list[EpisodeKey]:
            found = [] if self.looked else [EpisodeKey("run-1", number, 0) for number in range(9000)]
            self.looked = True
            return found

        def read(self, number: int) -> object:
            raise AssertionError(f"episode {number} is there already")

    asked: list[tuple[str, int]] = []

    def newest(run_id: str, episode: int) -> int:
        asked.append((run_id, episode))
        return 0

    link = stack.enter_context(LearnerLink(ANYWHERE))
    link.know(newest)
    robot = stack.enter_context(RobotLink(link.endpoint, run_id="run-1", spool=Long()))  # type: ignore[arg-type]
    robot.look()
    deadline_s = time.monotonic() + WAIT_S
    while robot.status.waiting:
        assert time.monotonic() < deadline_s
        robot.read_ahead(0.01)
        link.poll(0.005)
    assert robot.status.stored == 9000
    assert len(asked) == 3 * wire.PAGE_EPISODES

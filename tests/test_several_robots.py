"""Three robots feed one learner; one of them is started anew in the midst, one hardly answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from policy import learner_messages as wire
from policy.episode_commit import commit_episode
from policy.episode_spool import EpisodeSpool
from policy.episode_writer import EpisodeWriter
from policy.learner_settings import FreeRunning
from policy.robot_link import RobotLink
from policy.weights_header import read_header
from tests.episodes import SUCCESS, header
from tests.test_learner_episode import rows
from tests.test_learner_process import Running, running
from tests.test_learner_training import settings

EPISODES = 8  # of each robot
BEGINS_AT = 100  # version that one robot has from an earlier learner
WAIT_S = 60.0


class Robot:
    """Commits an episode now and then, sends from its disk and takes the weights that come."""

    def __init__(self, folder: Path, name: str, endpoint: str, *, begins_at: int = 0) -> None:
        self.folder, self.name, self.endpoint, self.version = folder, name, endpoint, begins_at
        folder.mkdir()
        self.committed = 0
        self.taken: list[int] = []
        self.restarts = 0
        self.link = self.connect()

    def connect(self) -> RobotLink:
        link = RobotLink(self.endpoint, run_id=self.name, spool=EpisodeSpool(self.folder, self.name))
        link.__enter__()
        link.begin_at(self.version)
        link.look()
        return link

    def start_anew(self) -> None:
        """As after a kill: nothing of the line is left but what is on the disk."""
        self.close()
        self.link = self.connect()
        self.restarts += 1

    def close(self) -> None:
        self.link.__exit__(None, None, None)

    def commit(self) -> None:
        head = header(self.committed).model_copy(update={"run_id": self.name})
        with EpisodeWriter(self.folder, head) as writer:
            for row in rows():
                writer.append(row)
            partial = writer.finish(SUCCESS)
        commit_episode(partial)
        self.committed += 1
        self.link.look()

    def work(self, *, answers: bool = True) -> None:
        self.link.read_ahead(0.02)
        newest = self.link.take_weights() if answers else None
        if newest is not None:
            version, message = newest
            assert int(read_header(message)["weights_version"]) == version
            self.taken.append(version)
            self.version = version
            self.link.answer(version, accepted=True)


def let(robots: list[Robot], done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s, [(robot.name, robot.link.status, robot.taken) for robot in robots]
        for robot in robots:
            robot.work()
        time.sleep(0.001)  # the learner is a thread of this process


@pytest.fixture
def learned(tmp_path: Path) -> tuple[list[Robot], Running, Path]:
    """Three robots through a whole session with a learner, and what is left of all."""
    schedule = FreeRunning(min_updates_per_tick=0.0, max_updates_per_tick=2.0, publish_every_updates=4)
    chosen = settings(
        tmp_path / "state", schedule=schedule, proprio_size=4, action_size=4, bundle_sha256=header().bundle_sha256
    )
    with ExitStack() as stack:
        learner = stack.enter_context(running(chosen))
        steady = Robot(tmp_path / "steady", "steady", learner.endpoint)
        restarted = Robot(tmp_path / "restarted", "restarted", learner.endpoint, begins_at=BEGINS_AT)
        lagging = Robot(tmp_path / "lagging", "lagging", learner.endpoint)
        robots = [steady, restarted, lagging]
        for robot in robots:
            stack.callback(robot.close)
        for number in range(EPISODES):
            for robot in robots:
                robot.commit()
            if number == EPISODES // 2:
                restarted.start_anew()
            before = len(steady.taken)
            # the lagging one sends, and does not answer what it was given until all is over
            deadline_s = time.monotonic() + WAIT_S
            while steady.link.status.stored <= number or len(steady.taken) == before:
                assert time.monotonic() < deadline_s, (steady.link.status, steady.taken)
                steady.work()
                restarted.work()
                lagging.work(answers=False)
        assert lagging.taken == []

        def all_done() -> bool:
            status = learner.statuses[-1]
            done = all(robot.link.status.stored == EPISODES for robot in robots)
            learned = status.episodes == 3 * EPISODES and status.updates == 2 * status.transitions
            return done and learned and all(robot.version == status.version for robot in robots)

        let(robots, all_done)
    return robots, learner, tmp_path / "state"


def test_all_robots_together_lose_nothing_and_hold_up_nobody(learned: tuple[list[Robot], Running, Path]) -> None:
    robots, learner, state = learned
    steady, restarted, lagging = robots
    found = []
    for path in sorted((state / "episodes").glob("*.msgpack")):
        message = wire.unpack_robot(path.read_bytes())
        assert isinstance(message, wire.EpisodeMessage)
        found.append((message.run_id, message.episode))
    # each episode is there once, and each robot's came in their order
    assert sorted(found) == sorted((robot.name, number) for robot in robots for number in range(EPISODES))
    for robot in robots:
        assert [number for name, number in found if name == robot.name] == list(range(EPISODES))
    last = learner.statuses[-1]
    assert last.episodes == 3 * EPISODES
    # updates are bounded by the ticks of all robots together
    assert last.updates == 2 * last.transitions > 0
    # versions go on above what any robot had, for each of them they only rise, and all end with the newest
    for robot in robots:
        assert robot.taken == sorted(set(robot.taken))
        assert robot.taken[-1] == last.version > BEGINS_AT
    assert min(restarted.taken) > BEGINS_AT
    assert restarted.restarts == 1
    # who answers gets many, who does not gets one that waited for it and then the newest
    assert len(steady.taken) >= EPISODES
    assert len(lagging.taken) < len(steady.taken) / 2
    assert last.malformed == 0
    assert last.accepted >= len(steady.taken) + len(lagging.taken)

"""Both ends over real sockets: nothing is lost, nothing is taken twice, nobody waits for the dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import zmq

from policy import learner_messages as wire
from policy.learner_link import LearnerLink, ReceivedEpisode
from policy.link_security import FixedRobots, LearnerKeys, RobotKeys
from policy.robot_link import RobotLink
from robot.errors import BadInputError, HandrailError
from tests.learner_episodes import made_up

ANYWHERE = "tcp://127.0.0.1:*"


class Wall:
    """A wall clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def robot_at(endpoint: str, wall: Wall | None = None, keys: RobotKeys | None = None) -> RobotLink:
    return RobotLink(endpoint, run_id="run-1", keys=keys, now_s=wall or Wall())


def together(learner: LearnerLink, robot: RobotLink, done: Callable[[], bool]) -> list[ReceivedEpisode]:
    """Let both ends work until `done`; episodes are acknowledged as stored."""
    got: list[ReceivedEpisode] = []
    deadline_s = time.monotonic() + 10.0
    while not done():
        assert time.monotonic() < deadline_s, (robot.status, learner.problem)
        robot.poll()
        for received in learner.poll(0.01):
            got.append(received)
            learner.acknowledge(received, "stored")
    return got


def test_episode_arrives_and_is_acknowledged(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    robot = stack.enter_context(robot_at(learner.endpoint))
    robot.send_episode(made_up(4))
    assert robot.status.waiting == 1
    got = together(learner, robot, lambda: robot.status.stored == 1)
    assert [received.episode.key for received in got] == [("run-1", 4, 0)]
    assert (robot.status.waiting, robot.status.connected) == (0, True)


def test_robot_without_learner_never_waits_and_keeps_its_episodes(stack: ExitStack) -> None:
    learner = LearnerLink(ANYWHERE)
    with learner:
        endpoint = learner.endpoint
    wall = Wall()
    robot = stack.enter_context(robot_at(endpoint, wall))
    for episode in range(5):
        robot.send_episode(made_up(episode))
    started_s = time.monotonic()
    for _ in range(200):
        robot.poll()
        assert robot.take_weights() is None
    assert time.monotonic() - started_s < 2.0  # 400 polls
    assert (robot.status.waiting, robot.status.connected) == (5, False)
    wall.ahead_s += 5.0
    late = stack.enter_context(LearnerLink(endpoint))
    got = together(late, robot, lambda: robot.status.stored == 5)
    assert [received.episode.key.episode for received in got] == [0, 1, 2, 3, 4]


def test_learner_that_died_before_acknowledging_gets_the_episode_again(stack: ExitStack) -> None:
    wall = Wall()
    with LearnerLink(ANYWHERE) as learner:
        endpoint = learner.endpoint
        robot = stack.enter_context(robot_at(endpoint, wall))
        robot.send_episode(made_up(1))
        deadline_s = time.monotonic() + 10.0
        while not learner.poll(0.01):  # received, never acknowledged
            robot.poll()
            assert time.monotonic() < deadline_s
    wall.ahead_s += 1.5  # the next hello is due, the resend by time is not
    second = stack.enter_context(LearnerLink(endpoint))
    assert len(together(second, robot, lambda: robot.status.stored == 1)) == 1


def test_refused_episode_is_not_sent_again(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    robot = stack.enter_context(robot_at(learner.endpoint))
    robot.send_episode(made_up(1))
    deadline_s = time.monotonic() + 10.0
    while robot.status.refused == 0:
        robot.poll()
        for received in learner.poll(0.01):
            learner.acknowledge(received, "refused", "features are 5 wide, not 7")
        assert time.monotonic() < deadline_s
    assert robot.status.waiting == 0
    assert "5 wide, not 7" in robot.status.problem


def test_unanswered_weights_hold_back_newer_ones_and_the_latest_comes_next(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    robot = stack.enter_context(robot_at(learner.endpoint))
    together(learner, robot, lambda: robot.status.connected)
    learner.publish(1, b"one")
    assert robot.wait_weights(1, 10.0) == b"one"
    learner.publish(2, b"two")
    learner.publish(3, b"three")
    assert robot.take_weights() is None
    robot.answer(1, accepted=True)
    taken: list[tuple[int, bytes]] = []

    def came() -> bool:
        taken.extend(filter(None, [robot.take_weights()]))
        return bool(taken)

    together(learner, robot, came)
    assert taken == [(3, b"three")]
    robot.answer(3, accepted=False, reason="saturated")
    together(learner, robot, lambda: learner.refused == 1)
    assert learner.accepted == 1
    assert "refused weights 3: saturated" in learner.problem


def test_episode_that_no_learner_would_take_is_given_up_at_once(stack: ExitStack) -> None:
    robot = stack.enter_context(robot_at("tcp://127.0.0.1:9"))
    robot.send_episode(replace(made_up(1), rewards=np.full(12, np.inf, np.float32)))
    assert (robot.status.waiting, robot.status.dropped) == (0, 1)
    assert "episode 1: array rewards" in robot.status.problem


def test_robot_that_connects_late_gets_the_weights(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    learner.publish(7, b"seven")
    robot = stack.enter_context(robot_at(learner.endpoint))
    together(learner, robot, lambda: robot.status.connected)
    assert robot.wait_weights(7, 10.0) == b"seven"


def test_weights_that_were_passed_by_are_not_waited_for(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    learner.publish(7, b"seven")
    robot = stack.enter_context(robot_at(learner.endpoint))
    together(learner, robot, lambda: robot.status.connected)
    with pytest.raises(HandrailError, match=r"at weights 7 and this run waits for 1: .* with --lock-step and an empty"):
        robot.wait_weights(1, 60.0)


def test_weights_that_do_not_come_end_the_wait(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    robot = stack.enter_context(robot_at(learner.endpoint))
    assert robot.wait_weights(1, 0.05) is None
    robot.send_episode(made_up(1))
    assert not robot.wait_stored(0.05)


def test_malformed_messages_are_counted_and_change_nothing(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    context = stack.enter_context(zmq.Context())
    stranger = stack.enter_context(context.socket(zmq.DEALER))
    stranger.linger = 0
    stranger.connect(learner.endpoint)
    episode = wire.pack(wire.episode_message(made_up(1)))
    stranger.send(b"\x80\x04pickle")
    stranger.send(episode[:-1])
    stranger.send_multipart([b"", episode])
    stranger.send(wire.sealed(episode[wire.DIGEST_BYTES :].replace(b"run-1", b"../..")))
    got: list[ReceivedEpisode] = []
    while learner.malformed < 4:
        got += learner.poll(5.0)
    assert got == []
    stranger.send(episode)
    assert [received.episode.key.episode for received in learner.poll(5.0)] == [1]
    assert learner.malformed == 4


def test_robot_counts_what_no_learner_would_say(stack: ExitStack) -> None:
    context = stack.enter_context(zmq.Context())
    liar = stack.enter_context(context.socket(zmq.ROUTER))
    liar.linger = 0
    liar.bind(ANYWHERE)
    robot = stack.enter_context(robot_at(liar.getsockopt_string(zmq.LAST_ENDPOINT)))
    deadline_s = time.monotonic() + 10.0
    while not liar.poll(10):
        robot.poll()
        assert time.monotonic() < deadline_s
    peer, _ = liar.recv_multipart()
    liar.send_multipart([peer, wire.pack(wire.Weights(version=1, payload=b"x"))[:-1]])
    while robot.status.malformed == 0:
        robot.poll()
        assert time.monotonic() < deadline_s
    assert robot.take_weights() is None


def test_port_in_use_is_one_line(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    with (
        pytest.raises(BadInputError, match=r"address already in use; stop what listens there") as caught,
        LearnerLink(learner.endpoint),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5757", "tcp://*:5757", "tcp://192.168.1.7:5757", "tcp://rig:1"])
def test_no_keys_no_network(endpoint: str) -> None:
    with pytest.raises(BadInputError, match="without CURVE keys"):
        LearnerLink(endpoint)
    with pytest.raises(BadInputError, match="without CURVE keys"):
        robot_at(endpoint)


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:5757", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://a:1"])
def test_what_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(BadInputError, match="learner endpoint: got"):
        LearnerLink(endpoint)


def test_with_keys_only_known_robots_are_heard(stack: ExitStack) -> None:
    learner_public, learner_secret = zmq.curve_keypair()
    known_public, known_secret = zmq.curve_keypair()
    other_public, other_secret = zmq.curve_keypair()
    robots = FixedRobots({known_public: "known"})
    keys = LearnerKeys(public=learner_public, secret=learner_secret, robots=robots)
    learner = stack.enter_context(LearnerLink(ANYWHERE, keys=keys))
    known, other = (
        stack.enter_context(
            robot_at(learner.endpoint, keys=RobotKeys(public=public, secret=secret, learner=learner_public))
        )
        for public, secret in ((known_public, known_secret), (other_public, other_secret))
    )
    plain = stack.enter_context(robot_at(learner.endpoint))
    for number, robot in enumerate((other, plain, known)):
        robot.send_episode(made_up(number))

    def heard() -> bool:
        for robot in (other, plain):
            robot.poll()
        return known.status.stored == 1

    got = together(learner, known, heard)
    assert [received.episode.key.episode for received in got] == [2]
    assert not other.status.connected
    assert not plain.status.connected


def test_a_commit_that_is_handed_over_late_does_not_replace_its_corrected_label(stack: ExitStack) -> None:
    learner = stack.enter_context(LearnerLink(ANYWHERE))
    robot = stack.enter_context(robot_at(learner.endpoint))
    old = made_up(1)
    robot.send_episode(replace(old, key=old.key._replace(revision=1)))
    robot.send_episode(old)
    got = together(learner, robot, lambda: robot.status.stored == 1)
    assert [received.episode.key.revision for received in got] == [1]


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:0",
        "tcp://bad host:5",
        "tcp://*:5757",
        f"ipc:///tmp/{'x' * 110}",
        "tcp://:5",
    ],
)
def test_an_address_that_no_robot_can_connect_to_is_one_line(endpoint: str) -> None:
    with pytest.raises(BadInputError, match=r"^learner endpoint: .*\(allowed ") as told:
        RobotLink(endpoint, run_id="run-1", keys=RobotKeys(public=b"", secret=b"", learner=b""))
    assert "\n" not in str(told.value)


def test_an_address_that_only_the_socket_refuses_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.robot_link.check_endpoint", lambda endpoint, **more: None)
    keys = RobotKeys(**dict.fromkeys(("public", "secret", "learner"), zmq.curve_keypair()[0]))
    with (
        pytest.raises(BadInputError, match=r"^learner endpoint: tcp://-:5 is no address to connect to"),
        RobotLink("tcp://-:5", run_id="run-1", keys=keys),
    ):
        pass

"""Thousands of messages that were changed, cut, glued, repeated or swapped: nothing is raised, nothing changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from policy import learner_messages as wire
from policy.learner_link import LearnerLink
from policy.learner_messages import DIGEST_BYTES, sealed
from policy.learner_training import Training
from policy.robot_link import RobotLink
from tests.learner_episodes import made_up
from tests.learner_stand_in import make_stand_in
from tests.test_learner_training import settings

ANYWHERE = "tcp://127.0.0.1:*"
WAIT_S = 60.0
COUNT = 4000
BATCH = 50  # fewer than the sockets' queues hold, so that none waits for the other

ROBOT: list[wire.RobotMessage] = [
    wire.Hello(run_id="run-1", received=4, answered=4, in_force=4),
    wire.Question(run_id="run-1", first=0, count=100),
    wire.WeightsReply(version=4, accepted=True, reason=""),
    wire.WeightsReply(version=4, accepted=False, reason="saturated"),
    wire.WeightsWithdrawn(version=4, reason="not finite"),
    wire.episode_message(made_up(1)),
    wire.episode_message(made_up(2, ticks=3)),
]
LEARNER: list[wire.LearnerMessage] = [
    wire.Welcome(learner="0" * 32),
    wire.Acknowledge(run_id="run-1", episode=0, revision=0, status="stored", reason=""),
    wire.Acknowledge(run_id="run-1", episode=0, revision=0, status="refused", reason="no"),
    wire.Inventory.of(wire.Question(run_id="run-1", first=0, count=wire.PAGE_EPISODES), lambda run, episode: 0),
    wire.Weights(version=7, payload=b"x" * 300),
]
# lengths and depths that a header may announce and that nothing stands behind
HEADERS = [
    *(bytes([kind]) + size for kind in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF) for size in (b"\xff" * 4, b"\x7f" + b"\xff" * 3)),
    b"\xdc\xff\xff", b"\xde\xff\xff", b"\xc5\xff\xff", b"\xda\xff\xff",
    b"\x91" * 5000, b"\x81\xa1a" * 5000, b"\x91" * 600 + b"\xc0", b"\xdd\x00\x10\x00\x00" * 200,
    b"\x81" + b"\x91" * 100 + b"\xc0\xc0", b"\xc1", b"\xa4\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"",
    b"\x81\xa4type\xa5hello", b"\x81\xa4type\x93\x01\x02\x03", b"\x82\xa4type\xa5hello\xa4type\xa7episode",
    msgpack.packb(msgpack.Timestamp(1)), msgpack.packb(msgpack.ExtType(5, b"x" * 100)), msgpack.packb([1] * 17),
]  # fmt: skip


def mutant(rng: np.random.Generator, whole: list[bytes]) -> bytes:
    """One message that is none any more, whatever digest it carries."""
    first = whole[rng.integers(len(whole))]
    second = whole[rng.integers(len(whole))]
    body = bytearray(first[DIGEST_BYTES:])
    match rng.integers(7):
        case 0:  # bits
            for _ in range(rng.integers(1, 6)):
                first = flipped(first, int(rng.integers(8 * len(first))))
            return first
        case 1:  # cut
            return first[: rng.integers(len(first))]
        case 2:  # glued
            return first[: rng.integers(1, len(first))] + second[rng.integers(len(second)) :] + b"\0"
        case 3:  # cut or longer, under a right digest
            return sealed(bytes(body[: rng.integers(len(body))]) if rng.integers(2) else bytes(body) + b"\xc0")
        case 4:  # an announcement in the midst, under a right digest
            place, header = rng.integers(len(body)), HEADERS[rng.integers(len(HEADERS))]
            return sealed(bytes(body[:place]) + header)
        case 5:
            return sealed(HEADERS[rng.integers(len(HEADERS))])
        case _:
            return rng.bytes(int(rng.integers(1, 200)))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def broken(rng: np.random.Generator, messages: list[Any], unpack: Callable[[bytes], object]) -> list[bytes]:
    """Return `COUNT` messages that no side may take; the few that mutation left sound are left out."""
    whole = [wire.pack(message) for message in messages]
    found = []
    while len(found) < COUNT:
        data = mutant(rng, whole)
        try:
            message = unpack(data)
            if isinstance(message, wire.EpisodeMessage):
                wire.episode_arrays(message)
        except wire.MalformedMessageError:
            found.append(data)
        else:
            assert data in whole or sealed(data[DIGEST_BYTES:]) == data, "a changed message passed for a sound one"
    return found


@contextmanager
def raw(kind: int) -> Iterator[zmq.Socket[bytes]]:
    """A socket that says whatever it is told."""
    context = zmq.Context()
    found: zmq.Socket[bytes] = context.socket(kind)
    found.linger = 0
    try:
        yield found
    finally:
        found.close()
        context.term()


def learner_state(link: LearnerLink, training: Training, folder: Path) -> dict[str, Any]:
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = {name: getattr(link, name) for name in ("accepted", "refused", "withdrawn", "robot_version")}
    peers = [(peer.received, peer.sent, peer.answered) for peer in link._peers.values()]
    return {"files": files, "told": told, "peers": peers, "version": training.version}


@pytest.mark.parametrize("seed", range(3))
def test_learner_counts_broken_messages_and_stays_as_it_was(tmp_path: Path, seed: int) -> None:
    sent = broken(np.random.default_rng(seed), ROBOT, wire.unpack_robot)
    chosen = settings(tmp_path)
    training = Training(chosen, make_stand_in(chosen))
    with LearnerLink(ANYWHERE) as link, raw(zmq.DEALER) as liar:
        link.know(training.newest_revision)
        liar.connect(link.endpoint)
        hello = wire.pack(wire.Hello(run_id="run-1", received=3, answered=3, in_force=3))
        liar.send(hello)
        assert link.poll(WAIT_S) == []
        assert liar.poll(1000 * int(WAIT_S))
        liar.recv()  # the welcome
        before = learner_state(link, training, tmp_path)
        for start in range(0, COUNT, BATCH):
            for data in sent[start : start + BATCH]:
                liar.send(data)
            wanted = min(start + BATCH, COUNT)
            deadline_s = time.monotonic() + WAIT_S
            while link.malformed < wanted:
                assert link.poll(0.1) == []
                assert time.monotonic() < deadline_s
        assert link.malformed == COUNT
        assert learner_state(link, training, tmp_path) == before
        assert liar.poll(0) == 0
        # and it still listens
        liar.send(wire.pack(wire.episode_message(made_up(1))))
        (received,) = link.poll(WAIT_S)
        assert training.accept(received.episode, received.payload) == "stored"


@pytest.mark.parametrize("seed", range(3))
def test_robot_counts_broken_messages_and_stays_as_it_was(seed: int) -> None:
    sent = broken(np.random.default_rng(100 + seed), LEARNER, wire.unpack_learner)
    with raw(zmq.ROUTER) as liar:
        liar.bind(ANYWHERE)
        with RobotLink(liar.getsockopt_string(zmq.LAST_ENDPOINT), run_id="run-1") as robot:
            robot.send_episode(made_up(0))
            peer = greeted(liar, robot)
            liar.send_multipart([peer, wire.pack(wire.Welcome(learner="f" * 32))])
            settle(robot, lambda: robot.status.connected)
            before = asdict(robot.status) | {"malformed": 0, "problem": ""}
            for start in range(0, COUNT, BATCH):
                for data in sent[start : start + BATCH]:
                    liar.send_multipart([peer, data])
                wanted = min(start + BATCH, COUNT)
                settle(robot, lambda wanted=wanted: robot.status.malformed >= wanted)  # type: ignore[misc]
            after = asdict(robot.status) | {"malformed": 0, "problem": ""}
            assert robot.status.malformed == COUNT
            assert after | {"connected": True} == before
            assert robot.take_weights() is None


def test_sound_messages_that_come_again_or_in_another_order_change_nothing(tmp_path: Path) -> None:
    """Replayed on the connection where they were said, and on another one where they never were."""
    chosen = settings(tmp_path)
    training = Training(chosen, make_stand_in(chosen))
    with ExitStack() as stack:
        link = stack.enter_context(LearnerLink(ANYWHERE))
        link.know(training.newest_revision)
        robot, other = stack.enter_context(raw(zmq.DEALER)), stack.enter_context(raw(zmq.DEALER))
        for one in (robot, other):
            one.connect(link.endpoint)
        said = [
            wire.Hello(run_id="run-1", received=0, answered=0, in_force=0),
            wire.episode_message(made_up(0)),
            wire.WeightsReply(version=5, accepted=True, reason=""),
            wire.Hello(run_id="run-1", received=5, answered=5, in_force=5),
            wire.episode_message(made_up(0, revision=1)),
        ]
        stored = []
        link.publish(5, b"five")
        for message in said:
            robot.send(wire.pack(message))
            for received in link.poll(WAIT_S):
                stored.append(training.accept(received.episode, received.payload))
        assert stored == ["stored", "stored"]
        assert (link.accepted, link.robot_version, link.ignored) == (1, 5, 0)
        before = learner_state(link, training, tmp_path)
        rng = np.random.default_rng(0)
        replies = 0
        for _ in range(1000):
            message = said[rng.integers(len(said))]
            again = isinstance(message, wire.WeightsReply)
            # another robot may say hello, but not answer for this one
            (other if again and rng.integers(2) else robot).send(wire.pack(message))
            for received in link.poll(WAIT_S):
                assert training.accept(received.episode, received.payload) == "known"
            replies += again or (isinstance(message, wire.Hello) and message.received == 0)
        assert learner_state(link, training, tmp_path) == before
        assert link.ignored == replies
        assert link.malformed == 0


def test_a_robot_heeds_no_answer_that_it_did_not_ask_for(tmp_path: Path) -> None:
    with raw(zmq.ROUTER) as liar:
        liar.bind(ANYWHERE)
        with RobotLink(liar.getsockopt_string(zmq.LAST_ENDPOINT), run_id="run-1") as robot:
            robot.begin_at(7)
            robot.send_episode(made_up(0))
            peer = greeted(liar, robot)
            unasked: list[wire.LearnerMessage] = [
                wire.Acknowledge(run_id="run-1", episode=0, revision=0, status="stored", reason=""),  # not sent yet
                wire.Acknowledge(run_id="run-1", episode=9, revision=0, status="stored", reason=""),
                wire.Acknowledge(run_id="run-2", episode=0, revision=0, status="refused", reason=""),
                wire.Weights(version=7, payload=b"old"),
                wire.Weights(version=1, payload=b"older"),
                LEARNER[3],
            ]
            for count in range(1, 301):
                liar.send_multipart([peer, wire.pack(unasked[count % len(unasked)])])
                settle(robot, lambda count=count: robot.status.ignored == count)  # type: ignore[misc]
            assert (robot.status.waiting, robot.status.stored, robot.status.refused) == (1, 0, 0)
            assert robot.take_weights() is None


@pytest.mark.parametrize("received", [10**9, wire.MAX_VERSION])
def test_a_claim_of_impossible_weights_does_not_use_up_the_versions(received: int) -> None:
    with LearnerLink(ANYWHERE) as link, raw(zmq.DEALER) as liar:
        liar.connect(link.endpoint)
        liar.send(wire.pack(wire.Hello(run_id="run-1", received=received, answered=0, in_force=0)))
        assert link.poll(WAIT_S) == []
        assert (link.malformed, link.robot_version, link.robots) == (1, 0, 0)


def greeted(liar: zmq.Socket[bytes], robot: RobotLink) -> bytes:
    deadline_s = time.monotonic() + WAIT_S
    while not liar.poll(5):
        robot.poll()
        assert time.monotonic() < deadline_s
    return liar.recv_multipart()[0]


def settle(robot: RobotLink, done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        robot.poll()
        assert time.monotonic() < deadline_s, robot.status

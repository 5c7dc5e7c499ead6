"""The robot's end of the line to the learner. Nothing here waits, except where it says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import zmq

from policy import learner_messages as wire
from policy.learner_episode import EpisodeArrays, EpisodeKey
from policy.link_security import RobotKeys, check_endpoint, secure_robot

HELLO_EVERY_S = 1.0
SILENT_AFTER_S = 3.0
RESEND_AFTER_S = 5.0
MAX_OUTBOX_BYTES = 512 * 1024 * 1024
MAX_PER_POLL = 32  # messages taken in one poll, so that a tick stays short
KEPT_WEIGHTS = 4
WAIT_SLICE_S = 0.02  # between attempts to send while waiting for a learner that is not connected yet


@dataclass(frozen=True, kw_only=True)
class RobotLinkStatus:
    """What the line did so far.

    Attributes:
        connected: the learner answered within the last seconds.
        waiting: episodes that the learner does not have yet.
        stored: episodes that it has.
        refused: episodes that it will never take, `problem` says why.
        dropped: episodes given up because too much waited; the log still has them.
        malformed: messages of the learner that were none.
        problem: the last thing that went wrong, or "".
    """

    connected: bool
    waiting: int
    stored: int
    refused: int
    dropped: int
    malformed: int
    problem: str


@dataclass
class _Outgoing:
    payload: bytes
    sent_s: float | None = None


class RobotLink:
    """Sends committed episodes until the learner has them, takes the latest weights.

    `poll` is called once a tick or more rarely; all calls but those named `wait_` return at once, whether a
    learner is there or not. With the learner gone, episodes wait here and the weights in force stay.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        run_id: str,
        keys: RobotKeys | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a line to the learner at `endpoint`; entering connects.

        `now_s` is wall time even where the robot's clock is virtual, for the learner lives in real time.

        Raises:
            BadInputError: `endpoint` is no address, or is on another machine without `keys`.
        """
        check_endpoint(endpoint, keys=keys is not None)
        self._endpoint, self._run_id, self._keys, self._now_s = endpoint, run_id, keys, now_s
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._outbox: dict[EpisodeKey, _Outgoing] = {}
        self._replies: list[bytes] = []
        self._weights: dict[int, bytes] = {}
        self._received = self._answered = self._in_force = 0
        self._learner = ""
        self._hello_s = self._heard_s = float("-inf")
        self._stored = self._refused = self._dropped = self._malformed = 0
        self._problem = ""

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.immediate = True  # send fails instead of queueing for a learner that is not there
        self._socket.sndhwm = self._socket.rcvhwm = 64
        self._socket.maxmsgsize = 2 * wire.MAX_MESSAGE_BYTES
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 50, 1000
        if self._keys is not None:
            secure_robot(self._socket, self._keys)
        self._socket.connect(self._endpoint)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            self._socket.close()
            self._context.term()
            self._context = None

    @property
    def status(self) -> RobotLinkStatus:
        """Counts and the last problem."""
        return RobotLinkStatus(
            connected=self._now_s() - self._heard_s < SILENT_AFTER_S,
            waiting=len(self._outbox),
            stored=self._stored,
            refused=self._refused,
            dropped=self._dropped,
            malformed=self._malformed,
            problem=self._problem,
        )

    def begin_at(self, version: int) -> None:
        """Say that weights `version` are in force already, before the first `poll`: the learner sends newer ones."""
        self._received = self._answered = self._in_force = version

    def send_episode(self, episode: EpisodeArrays) -> None:
        """Hand over a committed episode, or a newer revision of one; it is resent until the learner has it."""
        try:
            message = wire.episode_message(episode)
            wire.episode_arrays(message)  # the learner would drop it without a word
            payload = wire.pack(message)
        except wire.MalformedMessageError as error:
            self._dropped += 1
            self._problem = f"episode {episode.key.episode}: {error}"
            return
        self._outbox[episode.key] = _Outgoing(payload)
        while sum(len(entry.payload) for entry in self._outbox.values()) > MAX_OUTBOX_BYTES:
            oldest = next(iter(self._outbox))
            del self._outbox[oldest]
            self._dropped += 1
            self._problem = f"episode {oldest.episode} not sent: the learner is gone and too much waits for it"
        self.poll()

    def poll(self) -> None:
        """Send what is due and take what has come, without waiting."""
        for _ in range(MAX_PER_POLL):
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._take(data)
        now_s = self._now_s()
        if now_s - self._hello_s >= HELLO_EVERY_S and self._try_send(self._hello()):
            self._hello_s = now_s
        while self._replies and self._try_send(self._replies[0]):
            self._replies.pop(0)
        if not self._learner:
            return  # an unknown learner may still be loading; it answers the hello first
        for entry in self._outbox.values():
            if entry.sent_s is None or now_s - entry.sent_s >= RESEND_AFTER_S:
                if not self._try_send(entry.payload):
                    break
                entry.sent_s = now_s

    def take_weights(self) -> tuple[int, bytes] | None:
        """Return the newest weights that came since the last call, as (version, message), or None."""
        self.poll()
        if not self._weights:
            return None
        version = max(self._weights)
        payload = self._weights[version]
        self._weights.clear()
        return version, payload

    def wait_weights(self, version: int, timeout_s: float) -> bytes | None:
        """Wait for exactly `version`, for lock-step runs; None when it did not come within `timeout_s`."""
        if not self._wait(lambda: version in self._weights, timeout_s):
            return None
        payload = self._weights.pop(version)
        for older in [number for number in self._weights if number < version]:
            del self._weights[older]
        return payload

    def wait_newer(self, timeout_s: float) -> bool:
        """Wait until `take_weights` has some to give; False when none came."""
        return self._wait(lambda: bool(self._weights), timeout_s)

    def wait_stored(self, timeout_s: float) -> bool:
        """Wait until the learner has every episode sent, at the end of a run; False when it has not."""
        return self._wait(lambda: not self._outbox, timeout_s)

    def answer(self, version: int, *, accepted: bool, reason: str = "") -> None:
        """Tell the learner what became of weights `version`; only then does it send newer ones."""
        self._answered = max(self._answered, version)
        if accepted:
            self._in_force = version
        self._replies.append(wire.pack(wire.WeightsReply(version=version, accepted=accepted, reason=reason[:500])))
        self.poll()

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = self._now_s() + timeout_s
        self.poll()
        while not done():
            remaining_s = deadline_s - self._now_s()
            if remaining_s <= 0.0:
                return False
            self._socket.poll(int(min(remaining_s, WAIT_SLICE_S) * 1000) + 1)
            self.poll()
        return True

    def _hello(self) -> bytes:
        return wire.pack(
            wire.Hello(run_id=self._run_id, received=self._received, answered=self._answered, in_force=self._in_force)
        )

    def _try_send(self, payload: bytes) -> bool:
        try:
            self._socket.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _take(self, data: bytes) -> None:
        try:
            message = wire.unpack_learner(data)
        except wire.MalformedMessageError as error:
            self._malformed += 1
            self._problem = str(error)
            return
        self._heard_s = self._now_s()
        if isinstance(message, wire.Weights):
            if message.version > self._received:
                self._received = message.version
                self._weights[message.version] = message.payload
                while len(self._weights) > KEPT_WEIGHTS:
                    del self._weights[min(self._weights)]
        elif isinstance(message, wire.Acknowledge):
            self._acknowledged(message)
        elif message.learner != self._learner:
            self._learner = message.learner  # it started anew and may not have what was on its way
            for entry in self._outbox.values():
                entry.sent_s = None

    def _acknowledged(self, message: wire.Acknowledge) -> None:
        key = EpisodeKey(message.run_id, message.episode, message.revision)
        if self._outbox.pop(key, None) is None:
            return
        if message.status == "refused":
            self._refused += 1
            self._problem = f"episode {key.episode}: learner refused it: {message.reason}"
        else:
            self._stored += 1

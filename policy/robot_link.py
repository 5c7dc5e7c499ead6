"""The robot's end of the line to the learner. Nothing here waits, except where it says so."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import zmq

from policy import learner_messages as wire
from policy.learner_episode import EpisodeArrays, EpisodeKey
from policy.link_security import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, RobotKeys, check_endpoint, secure_robot
from robot.errors import BadInputError, HandrailError

HELLO_EVERY_S = 1.0
SILENT_AFTER_S = 3.0
RESEND_AFTER_S = 5.0
MAX_OUTBOX_BYTES = 64 * 1024 * 1024
MAX_PER_POLL = 32  # messages taken in one poll, so that a tick stays short
KEPT_WEIGHTS = 4
RECONNECT_S = 2.0  # after keys were refused, which ZeroMQ takes for an answer; a person may add them meanwhile
WAIT_SLICE_S = 0.02  # between attempts to send while waiting for a learner that is not connected yet
_REFUSALS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class Spool(Protocol):
    """The episodes that a run has on its disk, as `policy.episode_spool.EpisodeSpool` finds them."""

    @property
    def problem(self) -> str:
        """The last file that could not be read, or ""."""
        ...

    def look(self) -> Sequence[EpisodeKey]:
        """Return what is new or has a new label since the last look."""
        ...

    def read(self, number: int) -> EpisodeArrays:
        """Return the newest revision of an episode. Raises BadInputError when it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class RobotLinkStatus:
    """What the line did so far.

    Attributes:
        connected: the learner answered within the last seconds.
        waiting: episodes that the learner does not have yet, or of which it is not known.
        stored: episodes that it has.
        refused: episodes that this learner will never take, `problem` says why.
        dropped: episodes given up because too much waited and they are on no disk, or cannot be read.
        malformed: messages of the learner that were none.
        ignored: sound ones that came out of place: replayed, out of order, or not asked for.
        problem: the last thing that went wrong, or "".
    """

    connected: bool
    waiting: int
    stored: int
    refused: int
    dropped: int
    malformed: int
    ignored: int
    problem: str


@dataclass
class _Outgoing:
    """An episode that the learner may lack: its message, or None while it is on the disk alone."""

    revision: int
    payload: bytes | None = None
    sent_s: float | None = None


class RobotLink:
    """Sends committed episodes until the learner has them, takes the latest weights.

    Episodes go one at a time, in their order. With a spool they may wait on the disk: whenever a learner answers that
    it has not met before, it is asked what it has, and gets all else, however either side was started anew.

    `poll` is called once a tick or more rarely; all calls but those named `wait_` or `read_` return at once, whether
    a learner is there or not. With the learner gone, episodes wait and the weights in force stay.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        run_id: str,
        keys: RobotKeys | None = None,
        spool: Spool | None = None,
        now_s: Callable[[], float] = time.monotonic,
        max_outbox_bytes: int = MAX_OUTBOX_BYTES,
    ) -> None:
        """Prepare a line to the learner at `endpoint`; entering connects.

        Args:
            endpoint: of the learner.
            run_id: whose episodes these are.
            keys: of this robot; needed beyond this machine.
            spool: where the run's episodes can be read again; None where they are in memory only.
            now_s: wall time even where the robot's clock is virtual, for the learner lives in real time.
            max_outbox_bytes: of messages that wait in memory.

        Raises:
            BadInputError: `endpoint` is no address, or is on another machine without `keys`.
        """
        check_endpoint(endpoint, keys=keys is not None, robot=True)
        self._endpoint, self._run_id, self._keys, self._now_s = endpoint, run_id, keys, now_s
        self._spool, self._max_outbox_bytes = spool, max_outbox_bytes
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._outbox: dict[int, _Outgoing] = {}
        self._mine: dict[int, int] = {}  # all episodes of the run that the spool has -> newest revision
        self._known: dict[int, int] = {}  # those that the learner has -> its revision
        self._unwanted: dict[int, int] = {}  # those that it will never take -> the revision that it refused
        self._pages: deque[int] = deque()  # first episodes of the questions that it has not answered
        self._asked_s: float | None = None
        self._replies: deque[bytes] = deque()
        self._weights: dict[int, bytes] = {}
        self._received = self._answered = self._in_force = 0
        self._learner = ""
        self._hello_s = self._heard_s = -math.inf
        self._again_s = math.inf  # when to connect anew
        self._dropped = self._malformed = self._ignored = 0
        self._problem = self._turned_away = ""

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.immediate = True  # send fails instead of queueing for a learner that is not there
        self._socket.sndhwm = self._socket.rcvhwm = 64
        self._socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 50, 1000
        self._socket.heartbeat_ivl, self._socket.heartbeat_timeout = HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
        if self._keys is not None:
            secure_robot(self._socket, self._keys)
        self._monitor = self._socket.get_monitor_socket(_REFUSALS)
        try:
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self.__exit__(None, None, None)
            raise BadInputError(
                f"learner endpoint: {self._endpoint} is no address to connect to ({error}); give the learner's own"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close()
            self._context.term()
            self._context = None

    @property
    def status(self) -> RobotLinkStatus:
        """Counts and the last problem."""
        return RobotLinkStatus(
            connected=self._now_s() - self._heard_s < SILENT_AFTER_S,
            waiting=len(self._outbox),
            stored=len(self._known),
            refused=len(self._unwanted),
            dropped=self._dropped,
            malformed=self._malformed,
            ignored=self._ignored,
            problem=self._turned_away or self._problem or (self._spool.problem if self._spool else ""),
        )

    def begin_at(self, version: int, *, seen: int | None = None) -> None:
        """Say what is in force already, before the first `poll`: the learner sends newer ones.

        Args:
            version: of the weights in force.
            seen: newest version that is not to be taken again, where older ones were put in force on purpose.
        """
        self._received = self._answered = max(version, seen or 0)
        self._in_force = version

    def send_episode(self, episode: EpisodeArrays) -> None:
        """Hand over a committed episode, or a newer revision of one; it is resent until the learner has it."""
        number, revision = episode.key.episode, episode.key.revision
        if self._spool is not None:
            self._mine[number] = max(revision, self._mine.get(number, -1))
        held = self._outbox.get(number)
        if self._known.get(number, -1) >= revision:
            return
        # a label that was corrected at once may be found on the disk before the commit is handed over
        if held is not None and (held.revision > revision or (held.revision == revision and held.payload is not None)):
            return
        self._outbox[number] = _Outgoing(revision)
        self._load(number, episode)
        self._bound()
        self.poll()

    def look(self) -> Sequence[EpisodeKey]:
        """Take note of what the run committed or relabelled since, and return that; costs a millisecond an episode."""
        found = self._spool.look() if self._spool is not None else ()
        for key in found:
            self._mine[key.episode] = key.revision
            held = self._outbox.get(key.episode)
            done = max(self._known.get(key.episode, -1), self._unwanted.get(key.episode, -1))
            if key.revision > max(done, held.revision if held else -1):
                self._outbox[key.episode] = _Outgoing(key.revision)
                if self._learner:
                    self._ask_of([key.episode])
        return found

    def read_ahead(self, budget_s: float) -> None:
        """Read what is to be sent next from the disk, for about `budget_s`; an episode takes some 20 ms."""
        until_s = self._now_s() + budget_s
        if any(entry.payload is None for entry in self._outbox.values()):
            self.look()  # it may know episodes by hearsay only
        held = sum(len(entry.payload) for entry in self._outbox.values() if entry.payload is not None)
        for place, number in enumerate(self._lacking()):
            if self._outbox[number].payload is None:
                if (held >= self._max_outbox_bytes and place) or self._now_s() >= until_s or self._spool is None:
                    break
                try:
                    self._load(number, self._spool.read(number))
                except BadInputError as error:
                    self._give_up(number, str(error))
                held += len(self._outbox[number].payload or b"") if number in self._outbox else 0
        self._bound()
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
        self._look_for_refusals(now_s)
        if now_s - self._hello_s >= HELLO_EVERY_S and self._try_send(self._hello()):
            self._hello_s = now_s
        while self._replies and self._try_send(self._replies[0]):
            self._replies.popleft()
        if not self._learner:
            return  # an unknown learner may still be loading; it answers the hello first
        if self._pages:
            if self._due(self._asked_s, now_s) and self._try_send(self._question()):
                self._asked_s = now_s
            return
        number = next(iter(self._outbox), None)
        if number is not None:
            entry = self._outbox[number]
            if entry.payload is not None and self._due(entry.sent_s, now_s) and self._try_send(entry.payload):
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
        """Wait for exactly `version`, for lock-step runs; None when it did not come within `timeout_s`.

        Raises:
            HandrailError: a newer one came, so that it never will.
        """
        if not self._wait(lambda: version in self._weights or self._received > version, timeout_s):
            return None
        if version not in self._weights:
            raise HandrailError(
                f"learner: it is at weights {self._received} and this run waits for {version}: it served another run "
                "or runs without --lock-step; start one for this run alone, with --lock-step and an empty --state"
            )
        payload = self._weights.pop(version)
        for older in [number for number in self._weights if number < version]:
            del self._weights[older]
        return payload

    def wait_newer(self, timeout_s: float) -> bool:
        """Wait until `take_weights` has some to give; False when none came."""
        return self._wait(lambda: bool(self._weights), timeout_s)

    def wait_connected(self) -> bool:
        """Return whether a learner that was met still answers; it seems gone to who has not polled for a while."""
        return bool(self._learner) and self._wait(lambda: self.status.connected, SILENT_AFTER_S)

    def wait_stored(self, timeout_s: float) -> bool:
        """Wait until the learner has every episode of the run, at its end; False when it has not."""
        return self._wait(lambda: bool(self._learner) and not self._pages and not self._outbox, timeout_s)

    def answer(self, version: int, *, accepted: bool, reason: str = "") -> None:
        """Tell the learner what became of weights `version`; only then does it send newer ones."""
        self._answered = max(self._answered, version)
        self._received = max(self._received, version)  # weights that are injected came by another way
        if accepted:
            self._in_force = version
        self._replies.append(wire.pack(wire.WeightsReply(version=version, accepted=accepted, reason=reason[:500])))
        self.poll()

    def withdraw(self, version: int, *, back_to: int, reason: str) -> None:
        """Tell the learner that accepted weights failed at work and that those of `back_to` are in force again."""
        self._in_force = back_to
        self._replies.append(wire.pack(wire.WeightsWithdrawn(version=version, reason=reason[:500])))
        self.poll()

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = self._now_s() + timeout_s
        self.poll()
        while not done():
            remaining_s = deadline_s - self._now_s()
            if remaining_s <= 0.0:
                return False
            self._socket.poll(int(min(remaining_s, WAIT_SLICE_S) * 1000) + 1)
            self.read_ahead(WAIT_SLICE_S)
        return True

    def _lacking(self) -> list[int]:
        """Return the episodes to send, first to last, as far as the learner was asked."""
        return [] if self._pages or not self._learner else list(self._outbox)

    def _load(self, number: int, episode: EpisodeArrays) -> None:
        """Make the message of an episode in the outbox; one that no learner would take goes."""
        try:
            message = wire.episode_message(episode)
            wire.episode_arrays(message)  # the learner would drop it without a word
            self._outbox[number].payload = wire.pack(message)
            self._outbox[number].revision = episode.key.revision
        except wire.MalformedMessageError as error:
            self._give_up(number, f"episode {number}: {error}")

    def _give_up(self, number: int, problem: str) -> None:
        del self._outbox[number]
        self._mine.pop(number, None)
        self._dropped += 1
        self._problem = problem

    def _bound(self) -> None:
        """Keep in memory what goes first, as far as it fits; without a spool the oldest are lost instead."""
        while sum(len(entry.payload or b"") for entry in self._outbox.values()) > self._max_outbox_bytes:
            held = [number for number, entry in self._outbox.items() if entry.payload is not None]
            if self._spool is None:
                self._give_up(held[0], f"episode {held[0]} not sent: the learner is gone and too much waits for it")
            elif len(held) > 1:
                self._outbox[held[-1]].payload = None
            else:
                break  # the only one, and it has to go as it is

    def _hello(self) -> bytes:
        return wire.pack(
            wire.Hello(run_id=self._run_id, received=self._received, answered=self._answered, in_force=self._in_force)
        )

    def _question(self) -> bytes:
        return wire.pack(wire.Question(run_id=self._run_id, first=self._pages[0], count=wire.PAGE_EPISODES))

    @staticmethod
    def _due(sent_s: float | None, now_s: float) -> bool:
        return sent_s is None or now_s - sent_s >= RESEND_AFTER_S

    def _look_for_refusals(self, now_s: float) -> None:
        """Tell a learner that lets nobody in from one that is not there, and try again now and then."""
        try:
            event = int.from_bytes(self._monitor.recv_multipart(zmq.NOBLOCK)[0][:2], "little")
        except zmq.Again:
            pass
        else:
            why = "does not let this robot's key in" if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH else "has other keys"
            self._turned_away = f"learner {self._endpoint} {why}; see launch/make_keys.py and --keys on both sides"
            self._again_s = now_s + RECONNECT_S
        if now_s >= self._again_s:
            self._again_s = math.inf
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)

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
            self._offered(message)
        elif isinstance(message, wire.Acknowledge):
            self._acknowledged(message)
        elif isinstance(message, wire.Inventory):
            self._told(message)
        elif message.learner != self._learner:
            self._meet(message.learner)

    def _offered(self, message: wire.Weights) -> None:
        if message.version <= self._received:
            self._ignored += 1
            return
        self._received = message.version
        self._weights[message.version] = message.payload
        while len(self._weights) > KEPT_WEIGHTS:
            del self._weights[min(self._weights)]

    def _meet(self, learner: str) -> None:
        """Begin anew with a learner that may have anything or nothing of this run."""
        self._learner, self._asked_s, self._turned_away = learner, None, ""
        self._known.clear()
        self._unwanted.clear()
        for number, revision in sorted(self._mine.items()):
            self._outbox.setdefault(number, _Outgoing(revision))
        self._outbox = dict(sorted(self._outbox.items()))
        for entry in self._outbox.values():
            entry.sent_s = None
        self._pages.clear()
        self._ask_of(self._outbox)

    def _ask_of(self, numbers: Iterable[int]) -> None:
        for first in sorted({number // wire.PAGE_EPISODES * wire.PAGE_EPISODES for number in numbers}):
            if first not in self._pages:
                self._pages.append(first)

    def _told(self, message: wire.Inventory) -> None:
        """Strike out what the learner has."""
        asked = self._pages and message.first == self._pages[0] and message.run_id == self._run_id
        if not asked or self._asked_s is None or len(message.revisions) != 4 * wire.PAGE_EPISODES:
            self._ignored += 1
            return
        self._pages.popleft()
        self._asked_s = None
        for number, revision in message.newest().items():
            entry = self._outbox.get(number)
            if entry is not None and revision >= entry.revision:
                self._known[number] = revision
                del self._outbox[number]

    def _acknowledged(self, message: wire.Acknowledge) -> None:
        entry = self._outbox.get(message.episode)
        sent = entry is not None and entry.sent_s is not None and entry.revision == message.revision
        if not sent or message.run_id != self._run_id:
            self._ignored += 1
            return
        del self._outbox[message.episode]
        if message.status == "refused":
            self._unwanted[message.episode] = message.revision
            self._problem = f"episode {message.episode}: learner refused it: {message.reason}"
        else:
            self._known[message.episode] = message.revision

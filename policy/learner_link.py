"""The learner's end of the line to the robots; `policy.robot_link` is the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import zmq

from policy import learner_messages as wire
from policy.learner_episode import EpisodeArrays
from policy.learner_messages import EpisodeMessage, MalformedMessageError
from policy.link_security import LearnerGuard, LearnerKeys, check_endpoint, guard_learner
from robot.errors import BadInputError

MAX_PEERS = 64
MAX_PER_POLL = 64  # so that a flood of messages cannot keep the learner from learning
TAKEN = 4  # messages of one robot that wait to be read; it sends one episode at a time
GIVEN = 64  # messages to one robot that wait to be sent, at most one of them weights
CONNECTED_S = 5.0  # a robot says hello once a second
MAX_AHEAD = 10**6  # versions that a learner may have lost; a claim beyond that is a mistake


@dataclass(frozen=True, kw_only=True)
class ReceivedEpisode:
    """A checked episode and the message it came in, waiting to be acknowledged."""

    peer: bytes
    payload: bytes
    episode: EpisodeArrays


@dataclass
class _Peer:
    """A connected robot: highest weights version that it was sent, and that it answered."""

    key: bytes
    received: int
    sent: int
    answered: int
    heard_s: float


class LearnerLink:
    """Takes episodes from robots and gives each the latest weights, one version on its way at a time.

    A robot that is slow to answer gets fewer versions, never a queue of old ones, and holds up no other.

    Attributes:
        endpoint: where it listens.
        malformed: messages dropped because they broke the rules of `policy.learner_messages`.
        ignored: sound messages that came out of place: replayed, out of order, about weights never sent.
        accepted, refused: versions, as robots answered.
        withdrawn: versions that robots took back after they had accepted them.
        robot_version: highest version that any robot has.
        problem: the last thing that went wrong, or "".
    """

    def __init__(self, endpoint: str, *, keys: LearnerKeys | None = None) -> None:
        """Prepare to listen at `endpoint`; entering binds.

        Raises:
            BadInputError: `endpoint` is no address, or not on this machine while there are no `keys`.
        """
        check_endpoint(endpoint, keys=keys is not None)
        self._keys = keys
        self._id = secrets.token_hex(16)
        self._peers: dict[bytes, _Peer] = {}
        self._version, self._weights = 0, b""
        self._newest: Callable[[str, int], int] = lambda run_id, episode: wire.NOT_HERE
        self.endpoint = endpoint
        self.malformed = self.ignored = self.accepted = self.refused = self.withdrawn = 0
        self.robot_version = 0
        self.problem = ""

    def __enter__(self) -> Self:
        """Bind; `endpoint` then has the port in place of `*`. Raises BadInputError when it cannot be had."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 200  # the last acknowledgements should still leave
        self._socket.router_mandatory = True
        self._socket.sndhwm, self._socket.rcvhwm = GIVEN, TAKEN
        self._socket.maxmsgsize = wire.MAX_MESSAGE_BYTES  # beyond it the peer is cut off before memory is taken
        self._guard: LearnerGuard | None = guard_learner(self._socket, self._keys)
        try:
            self._socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            self.__exit__(None, None, None)
            raise BadInputError(
                f"learner endpoint {self.endpoint}: {zmq.strerror(error.errno or 0).lower()}; "
                "stop what listens there or choose another port"
            ) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        if self._guard is not None:
            self._guard.close()
        self._context.term()

    @property
    def robots(self) -> int:
        """Robots that said hello within the last seconds."""
        now_s = time.monotonic()
        return sum(now_s - peer.heard_s < CONNECTED_S for peer in self._peers.values())

    @property
    def denied(self) -> int:
        """Connections of robots whose key may not connect."""
        return self._guard.denied if self._guard is not None else 0

    def know(self, newest: Callable[[str, int], int]) -> None:
        """Have robots that ask what is stored answered by `newest`: run, episode -> revision, -1 for none."""
        self._newest = newest

    def poll(self, timeout_s: float = 0.0) -> list[ReceivedEpisode]:
        """Return the episodes that came, waiting up to `timeout_s` for the first message."""
        episodes: list[ReceivedEpisode] = []
        if not self._socket.poll(int(timeout_s * 1000)):
            return episodes
        for _ in range(MAX_PER_POLL):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            try:
                received = self._take(frames)
            except MalformedMessageError as error:
                self.malformed += 1
                self.problem = str(error)
            else:
                episodes += [received] if received is not None else []
        return episodes

    def acknowledge(
        self, received: ReceivedEpisode, status: Literal["stored", "known", "refused"], reason: str = ""
    ) -> None:
        """Tell the robot that it need not send the episode again. Call it once the episode is safely stored."""
        run_id, episode, revision = received.episode.key
        message = wire.Acknowledge(
            run_id=run_id, episode=episode, revision=revision, status=status, reason=reason[:500]
        )
        self._send(received.peer, message)

    def publish(self, version: int, weights: bytes) -> None:
        """Give `weights` to every robot, in place of older ones not sent yet."""
        self._version, self._weights = version, weights
        for peer in list(self._peers):
            self._offer(peer)

    def _take(self, frames: list[zmq.Frame]) -> ReceivedEpisode | None:
        key = b""
        if self._guard is not None:
            allowed = self._guard.robot(frames[-1])
            if allowed is None:  # its key was revoked while it was connected
                self._peers.pop(frames[0].bytes, None)
                self.ignored += 1
                return None
            key = allowed
        if len(frames) != 2:
            raise MalformedMessageError(f"message has {len(frames) - 1} parts (allowed 1)")
        peer, data = frames[0].bytes, frames[1].bytes
        message = wire.unpack_robot(data)
        if isinstance(message, EpisodeMessage):
            return ReceivedEpisode(peer=peer, payload=data, episode=wire.episode_arrays(message))
        if isinstance(message, wire.Hello):
            self._greet(peer, key, message)
        elif isinstance(message, wire.Question):
            self._send(peer, wire.Inventory.of(message, self._newest))
        elif isinstance(message, wire.WeightsReply):
            self._answered(peer, message)
        else:
            self._taken_back(peer, message)
        return None

    def _greet(self, peer: bytes, key: bytes, hello: wire.Hello) -> None:
        if hello.received > max(self._version, self.robot_version) + MAX_AHEAD:
            raise MalformedMessageError(f"a robot says it has weights {hello.received}, newest here is {self._version}")
        state = self._peers.pop(peer, None)
        if state is None:
            state = _Peer(key=key, received=hello.received, sent=hello.received, answered=hello.answered, heard_s=0.0)
        elif hello.received < state.received or hello.answered < state.answered:
            self._peers[peer] = state  # said before what this connection has told since
            self.ignored += 1
            return
        while len(self._peers) >= MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[peer] = state
        self.robot_version = max(self.robot_version, hello.received)
        state.received, state.sent = hello.received, max(state.sent, hello.received)
        state.answered, state.heard_s = max(state.answered, hello.answered), time.monotonic()
        self._send(peer, wire.Welcome(learner=self._id))
        self._offer(peer)

    def _answered(self, peer: bytes, reply: wire.WeightsReply) -> None:
        state = self._peers.get(peer)
        if state is None or not state.answered < reply.version <= state.sent:
            self.ignored += 1  # counted before, or about weights that this learner never sent
            return
        state.answered = reply.version
        if reply.accepted:
            self.accepted += 1
        else:
            self.refused += 1
            self.problem = f"robot refused weights {reply.version}: {reply.reason}"
        self._offer(peer)

    def _taken_back(self, peer: bytes, message: wire.WeightsWithdrawn) -> None:
        state = self._peers.get(peer)
        if state is None or not 0 < message.version <= state.answered:
            self.ignored += 1
            return
        self.withdrawn += 1
        self.problem = f"robot took weights {message.version} back: {message.reason}"

    def _offer(self, peer: bytes) -> None:
        state = self._peers.get(peer)
        if state is None or state.answered < state.sent or state.sent >= self._version:
            return
        if self._guard is not None and not self._guard.allows(state.key):
            del self._peers[peer]
            return
        if self._send(peer, wire.Weights(version=self._version, payload=self._weights)):
            state.sent = self._version

    def _send(self, peer: bytes, message: wire.LearnerMessage) -> bool:
        try:
            self._socket.send_multipart([peer, wire.pack(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # gone, or not reading; a robot that comes back says hello
            self._peers.pop(peer, None)
            return False
        return True

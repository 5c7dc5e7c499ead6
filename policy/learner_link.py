"""The learner's end of the line to the robot; `policy.robot_link` is the other."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import zmq
from zmq.auth.thread import ThreadAuthenticator

from policy import learner_messages as wire
from policy.learner_episode import EpisodeArrays
from policy.learner_messages import EpisodeMessage, MalformedMessageError
from policy.link_security import LearnerKeys, check_endpoint, secure_learner
from robot.errors import BadInputError

MAX_PEERS = 8
MAX_PER_POLL = 64  # so that a flood of messages cannot keep the learner from learning


@dataclass(frozen=True, kw_only=True)
class ReceivedEpisode:
    """A checked episode and the message it came in, waiting to be acknowledged."""

    peer: bytes
    payload: bytes
    episode: EpisodeArrays


@dataclass
class _Peer:
    """A connected robot: highest weights version that it was sent, and that it answered."""

    sent: int = 0
    answered: int = 0


class LearnerLink:
    """Takes episodes from robots and gives each the latest weights, one version on its way at a time.

    A robot that is slow to answer gets fewer versions, never a queue of old ones. What breaks the rules of
    `policy.learner_messages` is counted in `malformed` and changes nothing.
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
        self.endpoint = endpoint
        self.malformed = self.accepted = self.refused = 0
        self.robot_version = 0
        self.problem = ""

    def __enter__(self) -> Self:
        """Bind; `endpoint` then has the port in place of `*`. Raises BadInputError when it cannot be had."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 200  # the last acknowledgements should still leave
        self._socket.router_mandatory = True
        self._socket.sndhwm = self._socket.rcvhwm = 64
        self._socket.maxmsgsize = 2 * wire.MAX_MESSAGE_BYTES  # beyond it the peer is cut off before memory is taken
        self._authenticator: ThreadAuthenticator | None = None
        if self._keys is not None:
            self._authenticator = secure_learner(self._socket, self._keys)
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
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def poll(self, timeout_s: float = 0.0) -> list[ReceivedEpisode]:
        """Return the episodes that came, waiting up to `timeout_s` for the first message."""
        episodes: list[ReceivedEpisode] = []
        if not self._socket.poll(int(timeout_s * 1000)):
            return episodes
        for _ in range(MAX_PER_POLL):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                received = self._take(parts)
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

    def _take(self, parts: list[bytes]) -> ReceivedEpisode | None:
        if len(parts) != 2:
            raise MalformedMessageError(f"message has {len(parts) - 1} parts (allowed 1)")
        peer, data = parts
        message = wire.unpack_robot(data)
        if isinstance(message, EpisodeMessage):
            return ReceivedEpisode(peer=peer, payload=data, episode=wire.episode_arrays(message))
        if isinstance(message, wire.WeightsReply):
            self._answered(peer, message)
        else:
            self._greet(peer, message)
        return None

    def _greet(self, peer: bytes, hello: wire.Hello) -> None:
        state = self._peers.pop(peer, _Peer())
        while len(self._peers) >= MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[peer] = state
        self.robot_version = max(self.robot_version, hello.received)
        state.sent = hello.received  # what was lost on the way is sent again
        state.answered = max(state.answered, hello.answered)
        self._send(peer, wire.Welcome(learner=self._id))
        self._offer(peer)

    def _answered(self, peer: bytes, reply: wire.WeightsReply) -> None:
        state = self._peers.get(peer)
        if state is None or not state.answered < reply.version <= state.sent:
            return  # counted before, or about weights that this learner never sent
        state.answered = reply.version
        if reply.accepted:
            self.accepted += 1
        else:
            self.refused += 1
            self.problem = f"robot refused weights {reply.version}: {reply.reason}"
        self._offer(peer)

    def _offer(self, peer: bytes) -> None:
        state = self._peers.get(peer)
        if state is None or state.answered < state.sent or state.sent >= self._version:
            return
        if self._send(peer, wire.Weights(version=self._version, payload=self._weights)):
            state.sent = self._version

    def _send(self, peer: bytes, message: wire.Acknowledge | wire.Welcome | wire.Weights) -> bool:
        try:
            self._socket.send_multipart([peer, wire.pack(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # gone, or not reading; a robot that comes back says hello
            self._peers.pop(peer, None)
            return False
        return True

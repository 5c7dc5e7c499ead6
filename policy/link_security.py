"""Who may talk to whom: plain sockets on this machine only, CURVE keys everywhere else.

`policy.link_keys` reads and makes the files that hold the keys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import zmq
from zmq.auth.thread import ThreadAuthenticator

from robot.errors import BadInputError

_IPC_BYTES = 107  # of a path, as the kernel allows
# of the names that ZeroMQ takes; it says so only once it connects, and by then a run would have its folder
_HOST = re.compile(r"\*|[A-Za-z0-9:][\w.:%-]*|\[[\w.:%-]+\]", re.ASCII)
HANDSHAKE_MS = 5000  # who has not shown a key by then is cut off, so that silent strangers do not pile up
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 2000, 10_000  # a peer whose cable was pulled is gone after the latter


class Robots(Protocol):
    """Which robots may connect, asked at every connection and every message."""

    def name(self, public: bytes) -> str | None:
        """Return the name of the robot with the public key, None for one that may not connect (any more)."""
        ...


class FixedRobots:
    """Robots that stay the same."""

    def __init__(self, names: Mapping[bytes, str]) -> None:
        """Allow the robots in `names`, public key (Z85) to name."""
        self._names = dict(names)

    def name(self, public: bytes) -> str | None:
        """As `Robots.name`."""
        return self._names.get(public)


@dataclass(frozen=True, kw_only=True)
class LearnerKeys:
    """CURVE keys of the learner, in ZeroMQ's Z85 text.

    Attributes:
        public, secret: its own pair.
        robots: who may connect; others get no answer.
    """

    public: bytes
    secret: bytes
    robots: Robots


@dataclass(frozen=True, kw_only=True)
class RobotKeys:
    """CURVE keys of a robot: its own pair and the learner's public key, in ZeroMQ's Z85 text."""

    public: bytes
    secret: bytes
    learner: bytes


def check_endpoint(endpoint: str, *, keys: bool, robot: bool = False) -> None:
    """Raise BadInputError when `endpoint` is no address, or leaves this machine without `keys`.

    A `robot` connects to one port of one machine; a learner may leave open where it listens.

    What arrives here is trained on and moves an arm, so nobody on the network may send it unasked.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest not in ("", "@"):  # "@" begins an abstract name, and is none alone
        if len(rest.encode()) > _IPC_BYTES:
            raise BadInputError(
                f"learner endpoint: the path of {endpoint!r} has {len(rest.encode())} bytes (allowed {_IPC_BYTES}); "
                "give a shorter one"
            )
        return
    host, _, port = rest.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() else 0 if port == "*" else -1
    if scheme != "tcp" or not _HOST.fullmatch(host) or not 0 <= number < 65536:
        raise BadInputError(
            f"learner endpoint: got {endpoint!r} (allowed tcp://ADDRESS:PORT or ipc://PATH), e.g. tcp://127.0.0.1:5757"
        )
    if not keys and not is_loopback(host):
        raise BadInputError(
            f"learner endpoint: {endpoint!r} leaves this machine without CURVE keys "
            "(allowed without keys: 127.0.0.1, ::1, ipc); use a loopback address, or make keys with "
            "launch/make_keys.py and give them with --keys"
        )
    if robot and (host == "*" or not number):
        raise BadInputError(
            f"learner endpoint: got {endpoint!r} (allowed for a robot: one address and its port, 1 to 65535); give the "
            "one that the learner says it listens at"
        )


class LearnerGuard:
    """Keeps strangers from a learner's socket."""

    def __init__(self, socket: zmq.Socket[bytes], keys: LearnerKeys) -> None:
        """Make `socket` a CURVE server for the robots in `keys`."""
        self._robots = keys.robots
        self._denied = _Denied(keys.robots)
        self._authenticator = ThreadAuthenticator(socket.context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain="*", credentials_provider=self._denied)
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret

    @property
    def denied(self) -> int:
        """How often somebody knew the learner's public key and had none that may connect."""
        return self._denied.count

    def robot(self, frame: zmq.Frame) -> bytes | None:
        """Return the public key of the robot that sent `frame`, None when it may not send any more."""
        try:
            public = str(frame.get("User-Id")).encode()
        except (zmq.ZMQError, UnicodeDecodeError):
            return None
        return public if self.allows(public) else None

    def allows(self, public: bytes) -> bool:
        """Tell whether the robot with the public key may still connect."""
        return self._robots.name(public) is not None

    def close(self) -> None:
        """Stop; to be called after the socket was closed."""
        self._authenticator.stop()


def guard_learner(socket: zmq.Socket[bytes], keys: LearnerKeys | None) -> LearnerGuard | None:
    """Bound what a connection may cost, and with `keys` let in the robots in them only."""
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
    return LearnerGuard(socket, keys) if keys is not None else None


def secure_robot(socket: zmq.Socket[bytes], keys: RobotKeys) -> None:
    """Make `socket` a CURVE client that talks to the learner in `keys` only."""
    socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = keys.public, keys.secret, keys.learner


class _Denied:
    """What the authenticator's thread asks for every connection; counts those that it denies."""

    def __init__(self, robots: Robots) -> None:
        self._robots = robots
        self.count = 0

    def callback(self, domain: str, key: bytes) -> Any:
        """Tell whether the robot with public `key` may connect."""
        allowed = self._robots.name(key) is not None
        self.count += not allowed
        return allowed


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by its number or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

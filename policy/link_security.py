"""Who may talk to whom: plain sockets on this machine only, CURVE keys everywhere else."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from robot.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class LearnerKeys:
    """CURVE keys of the learner, in ZeroMQ's Z85 text.

    Attributes:
        public, secret: its own pair.
        robots: public keys of the robots that may connect; others get no answer.
    """

    public: bytes
    secret: bytes
    robots: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class RobotKeys:
    """CURVE keys of a robot: its own pair and the learner's public key, in ZeroMQ's Z85 text."""

    public: bytes
    secret: bytes
    learner: bytes


def check_endpoint(endpoint: str, *, keys: bool) -> None:
    """Raise BadInputError when `endpoint` is no address, or leaves this machine without `keys`.

    What arrives here is trained on and moves an arm, so nobody on the network may send it unasked.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        return
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not (port == "*" or (port.isdecimal() and int(port) < 65536)):
        raise BadInputError(
            f"learner endpoint: got {endpoint!r} (allowed tcp://ADDRESS:PORT or ipc://PATH), e.g. tcp://127.0.0.1:5757"
        )
    if not keys and not is_loopback(host):
        raise BadInputError(
            f"learner endpoint: {endpoint!r} leaves this machine without CURVE keys "
            "(allowed without keys: 127.0.0.1, ::1, ipc); use a loopback address or give keys"
        )


def secure_learner(socket: zmq.Socket[bytes], keys: LearnerKeys) -> ThreadAuthenticator:
    """Make `socket` a CURVE server for the robots in `keys`; stop the authenticator after closing the socket."""
    authenticator = ThreadAuthenticator(socket.context)
    authenticator.start()
    authenticator.configure_curve_callback(domain="*", credentials_provider=_Allowed(keys.robots))
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    return authenticator


def secure_robot(socket: zmq.Socket[bytes], keys: RobotKeys) -> None:
    """Make `socket` a CURVE client that talks to the learner in `keys` only."""
    socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = keys.public, keys.secret, keys.learner


class _Allowed:
    """What the authenticator asks for every connection."""

    def __init__(self, robots: tuple[bytes, ...]) -> None:
        self._robots = frozenset(robots)

    def callback(self, domain: str, key: bytes) -> Any:
        """Tell whether the robot with public `key` may connect."""
        return key in self._robots


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by its number or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

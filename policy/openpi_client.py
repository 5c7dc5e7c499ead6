"""Asks a policy server for actions over the openpi websocket protocol, each time with a deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from policy.onnx_session import PolicyError
from policy.openpi_wire import MAX_MESSAGE_BYTES, pack, unpack

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0
_CLOSE_S = 0.2


class RemoteError(PolicyError):
    """A policy server gave no usable answer; one line for the person."""


class OpenpiClient:
    """One connection, made when it is needed and anew after whatever went wrong. For one thread.

    An answer belongs to the request before it by its order alone, so a connection on which one is overdue is closed,
    and so is one on which a message lies before anything was asked.

    Args:
        endpoint: ws://HOST:PORT or wss://HOST:PORT, checked by the caller.
        api_key: sent in the Authorization header; None without one.
        chunk_bytes: greatest size of the chunk in an answer; the rest of it may take `MAX_MESSAGE_BYTES`.
        now_s: monotonic clock [s].
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str | None = None,
        *,
        chunk_bytes: int = 0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint, self._now_s = endpoint, now_s
        self._max_bytes = MAX_MESSAGE_BYTES + chunk_bytes
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._connection: ClientConnection | None = None
        self._open = ExitStack()
        self._wait_s, self._not_before_s = 0.0, 0.0
        self.metadata: dict[str, Any] = {}

    def open(self, timeout_s: float) -> None:
        """Connect and read the server's metadata, unless that is done; after a failure not before some time has passed.

        Raises:
            RemoteError: nobody answers there, or somebody who does not speak the protocol.
        """
        if self._connection is not None:
            return
        now_s = self._now_s()
        if now_s < self._not_before_s:
            raise RemoteError(f"{self._where}: not reached; trying again in {self._not_before_s - now_s:.1f} s")
        until_s = now_s + timeout_s
        try:
            # no proxy: what a shell's environment says of the web is not meant for a robot
            self._connection = self._open.enter_context(
                connect(
                    self._endpoint,
                    compression=None,
                    max_size=self._max_bytes,
                    max_queue=1,  # there is never more than one answer to come
                    additional_headers=self._headers,
                    open_timeout=timeout_s,
                    close_timeout=_CLOSE_S,
                    ping_interval=None,  # a server that thinks for long answers no ping; the deadline tells a dead one
                    proxy=None,
                )
            )
            self.metadata = self._receive(until_s)
        except InvalidStatus as error:
            self._failed(
                f"refuses the connection (HTTP {error.response.status_code}); check the address and the API key"
            )
        except (InvalidHandshake, InvalidMessage):
            self._failed("is no websocket server; check the address")
        except (OSError, WebSocketException, EOFError) as error:
            self._failed(f"cannot be reached ({_line(error)}); start the policy server")
        except ValueError as error:  # a name that cannot be looked up, such as a..b, is a UnicodeError
            self._failed(f"has no usable address ({_line(error)}); check the endpoint")
        self._wait_s = 0.0

    def infer(self, observation: Mapping[str, object], deadline_s: float) -> dict[str, Any]:
        """Return the server's answer, within `deadline_s` seconds from now.

        Raises:
            RemoteError: not reached, overdue, an error of the server's own, or no message of the protocol.
        """
        until_s = self._now_s() + deadline_s
        self.open(deadline_s)
        connection = self._connection
        assert connection is not None
        message = pack(observation)
        try:
            connection.recv(timeout=0.0)
        except TimeoutError:
            pass  # as it should be
        except (OSError, WebSocketException, EOFError) as error:
            self._failed(f"is gone ({_line(error)})")
        else:
            self._failed("sent what was not asked for")
        try:
            with _cut_off_after(connection.socket, max(0.0, until_s - self._now_s())):
                connection.send(message)
        except (OSError, WebSocketException) as error:
            self._failed(f"is gone or takes no request ({_line(error)})")
        return self._receive(until_s)

    def close(self) -> None:
        """Close the connection, whatever the server does. Doing it again does no harm."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with _cut_off_after(connection.socket, _CLOSE_S):
                self._open.close()

    def _receive(self, until_s: float) -> dict[str, Any]:
        assert self._connection is not None
        left_s = max(0.0, until_s - self._now_s())
        try:
            with _cut_off_after(self._connection.socket, left_s + _CLOSE_S):  # it may answer a bad frame, and block
                data = self._connection.recv(timeout=left_s)
        except TimeoutError:
            self._failed("gave no answer by the deadline")
        except (OSError, WebSocketException, EOFError) as error:
            self._failed(f"is gone ({_line(error)})")
        if isinstance(data, str):  # the server's own error, a whole traceback; it then closes the connection
            lines = [line.strip() for line in data.strip().splitlines() if line.strip()]
            self._failed(f"reports an error: {(lines or ['without a word'])[-1][:150]}")
        try:
            return unpack(data, self._max_bytes)
        except ValueError as error:
            self._failed(f"sent what is {error}")

    @property
    def _where(self) -> str:
        return f"policy server {self._endpoint}"

    def _failed(self, what: str) -> NoReturn:
        self._back_off()
        raise RemoteError(f"{self._where}: {what}") from None

    def _back_off(self) -> None:
        self.close()
        self._wait_s = min(max(2.0 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        self._not_before_s = self._now_s() + self._wait_s


@contextmanager
def _cut_off_after(wire: socket.socket, seconds: float) -> Iterator[None]:
    """Shut `wire` down when the block takes longer, so that it raises.

    The socket's own time limits do not suffice: one for sending begins again with each part that goes out, and
    under TLS nothing heeds it.
    """

    def cut() -> None:
        with contextlib.suppress(OSError):  # it is closed already
            socket.socket.shutdown(wire, socket.SHUT_RDWR)  # that of a TLS socket would pull its state from the sender

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

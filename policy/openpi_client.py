"""Asks a policy server for actions over the openpi websocket protocol, each time with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
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

    An answer belongs to the request before it by its order alone, so a connection on which one is overdue is closed.

    Args:
        endpoint: ws://HOST:PORT or wss://HOST:PORT, checked by the caller.
        api_key: sent in the Authorization header; None without one.
        now_s: monotonic clock [s].
    """

    def __init__(
        self, endpoint: str, api_key: str | None = None, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoint, self._now_s = endpoint, now_s
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
                    max_size=MAX_MESSAGE_BYTES,
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
        except RemoteError:
            self._back_off()
            raise
        self._wait_s = 0.0

    def infer(self, observation: Mapping[str, object], deadline_s: float) -> dict[str, Any]:
        """Return the server's answer, within `deadline_s` seconds from now.

        Raises:
            RemoteError: not reached, overdue, an error of the server's own, or no message of the protocol.
        """
        until_s = self._now_s() + deadline_s
        self.open(deadline_s)
        assert self._connection is not None
        try:
            self._connection.send(pack(observation))
        except (OSError, WebSocketException) as error:
            self._failed(f"is gone ({_line(error)})")
        return self._receive(until_s)

    def close(self) -> None:
        """Close the connection. Doing it again does no harm."""
        self._connection = None
        self._open.close()

    def _receive(self, until_s: float) -> dict[str, Any]:
        assert self._connection is not None
        try:
            data = self._connection.recv(timeout=max(0.0, until_s - self._now_s()))
        except TimeoutError:
            self._failed("gave no answer by the deadline")
        except (OSError, WebSocketException, EOFError) as error:
            self._failed(f"is gone ({_line(error)})")
        if isinstance(data, str):  # the server's own error, a whole traceback; it then closes the connection
            lines = [line.strip() for line in data.strip().splitlines() if line.strip()]
            self._failed(f"reports an error: {(lines or ['without a word'])[-1][:150]}")
        try:
            return unpack(data)
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


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

"""A policy server that speaks the openpi websocket protocol with bytes of its own making, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

Answer = Callable[[dict[Any, Any]], bytes | str]
METADATA: bytes = msgpack.packb({"policy": "test", "action_horizon": 8})


def wire_array(values: np.ndarray) -> dict[bytes, Any]:
    """An array as the reference puts it on the wire."""
    return {b"__ndarray__": True, b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": list(values.shape)}


def chunk_answer(actions: np.ndarray) -> bytes:
    """What the reference's server answers, its timing included."""
    return msgpack.packb({"actions": wire_array(actions), "server_timing": {"infer_ms": 71.5, "prev_total_ms": 80}})


class PolicyServer:
    """Sends its metadata on connection, then answers each observation; a text is an error and the connection's end.

    Args:
        answer: observation as it came, arrays still as maps, to what goes back.
        key: that a client must have.
        metadata: sent on connection.
        unasked: messages that follow the first connection's metadata, whatever is asked.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        key: str | None = None,
        port: int = 0,
        metadata: bytes = METADATA,
        unasked: Sequence[bytes] = (),
    ) -> None:
        self._answer, self._key = answer, key
        self._metadata, self._unasked = metadata, unasked
        self.seen: list[dict[Any, Any]] = []
        self.connections = 0
        self._server = serve(
            self._talk,
            "127.0.0.1",
            port,
            compression=None,
            max_size=None,
            process_request=self._admit,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10.0)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self._key is not None and request.headers.get("Authorization") != f"Api-Key {self._key}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no key\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            connection.send(self._metadata)
            unasked, self._unasked = self._unasked, ()
            for message in unasked:
                connection.send(message)
            for data in connection:
                self.seen.append(msgpack.unpackb(data, strict_map_key=False))
                answer = self._answer(self.seen[-1])
                connection.send(answer)
                if isinstance(answer, str):
                    connection.close(1011)
                    return
        except ConnectionClosed:
            pass


def hostile(**changes: object) -> dict[bytes, Any]:
    """An array as it goes over the wire, but for what is changed."""
    return wire_array(np.zeros((2, 3), np.float32)) | {key.encode(): value for key, value in changes.items()}

"""The openpi client against a real websocket server, one that is gone, and hostile ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from policy.openpi_client import OpenpiClient, RemoteError
from policy.openpi_wire import MAX_MESSAGE_BYTES
from policy.remote_policy import check_remote_endpoint
from tests.openpi_server import PolicyServer, chunk_answer, hostile, wire_array
from tests.remote_bundle_bench import CHUNK

ACTIONS = np.linspace(-1.0, 1.0, CHUNK * 5).reshape(CHUNK, 5)
ENOUGH_S = 20.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def client_of(endpoint: str, key: str | None = None) -> Iterator[tuple[OpenpiClient, Clock]]:
    clock = Clock()
    client = OpenpiClient(endpoint, key, now_s=clock)
    try:
        yield client, clock
    finally:
        client.close()


def test_observation_and_chunk_pass_a_real_connection() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with PolicyServer(lambda seen: chunk_answer(ACTIONS)) as server, client_of(server.endpoint) as (client, _):
        for _ in range(3):
            answer = client.infer({"image": image, "prompt": "pick"}, ENOUGH_S)
            np.testing.assert_array_equal(answer["actions"], ACTIONS)
            assert answer["server_timing"]["infer_ms"] == 71.5
        assert client.metadata == {"policy": "test", "action_horizon": 8}
        assert server.connections == 1
        assert server.seen == [{"image": wire_array(image), "prompt": "pick"}] * 3


def test_the_api_key_goes_along_and_a_wrong_one_is_told() -> None:
    with PolicyServer(lambda seen: chunk_answer(ACTIONS), key="s3cret") as server:
        with client_of(server.endpoint, "s3cret") as (client, _):
            client.infer({}, ENOUGH_S)
        with client_of(server.endpoint, "other") as (client, _), pytest.raises(RemoteError, match="HTTP 401") as told:
            client.infer({}, ENOUGH_S)
        assert "other" not in str(told.value)


def test_the_servers_own_error_is_one_line_and_the_next_request_connects_anew() -> None:
    answers: list[bytes | str] = [
        "Traceback (most recent call last):\n  File ...\nKeyError: 'image'\n",
        chunk_answer(ACTIONS),
    ]
    with PolicyServer(lambda seen: answers.pop(0)) as server, client_of(server.endpoint) as (client, clock):
        with pytest.raises(RemoteError) as told:
            client.infer({}, ENOUGH_S)
        assert str(told.value) == f"policy server {server.endpoint}: reports an error: KeyError: 'image'"
        clock.now_s += 1.0
        client.infer({}, ENOUGH_S)
        assert server.connections == 2


def test_an_overdue_answer_never_counts_for_the_next_request() -> None:
    gate = threading.Event()
    levels = iter([1.0, 2.0])

    def answer(seen: dict[Any, Any]) -> bytes:
        level = next(levels)
        if level == 1.0:
            gate.wait(ENOUGH_S)
        return chunk_answer(np.full((CHUNK, 5), level))

    with PolicyServer(answer) as server, client_of(server.endpoint) as (client, clock):
        client.open(ENOUGH_S)
        with pytest.raises(RemoteError, match="no answer by the deadline"):
            client.infer({}, 0.05)
        clock.now_s += 1.0
        np.testing.assert_array_equal(client.infer({}, ENOUGH_S)["actions"], np.full((CHUNK, 5), 2.0))
        gate.set()


def test_a_message_that_was_not_asked_for_never_counts_as_an_answer() -> None:
    stale = chunk_answer(np.full((CHUNK, 5), 9.0))
    with (
        PolicyServer(lambda seen: chunk_answer(ACTIONS), unasked=[stale]) as server,
        client_of(server.endpoint) as (client, clock),
    ):
        client.open(ENOUGH_S)
        connection = client._connection
        assert connection is not None
        deadline_s = time.monotonic() + ENOUGH_S
        while not connection.recv_messages.frames.qsize():
            assert time.monotonic() < deadline_s, "the stale message never came"
        with pytest.raises(RemoteError, match="sent what was not asked for"):
            client.infer({}, ENOUGH_S)
        clock.now_s += 1.0
        np.testing.assert_array_equal(client.infer({}, ENOUGH_S)["actions"], ACTIONS)
        assert (server.connections, len(server.seen)) == (2, 1)


def test_a_server_that_reads_nothing_blocks_neither_request_nor_close() -> None:
    gate = threading.Event()

    def talk(connection: ServerConnection) -> None:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.recv_flow_control.acquire()  # the library's thread stops to read
        connection.send(msgpack.packb({}))
        gate.wait(ENOUGH_S)
        connection.recv_flow_control.release()

    with serve(talk, "127.0.0.1", 0, compression=None, close_timeout=0.2) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with client_of(f"ws://127.0.0.1:{server.socket.getsockname()[1]}") as (client, _):
            client.open(ENOUGH_S)
            asking = threading.Thread(target=_ask_in_vain, args=(client,), daemon=True)
            asking.start()
            asking.join(ENOUGH_S)
            blocked = asking.is_alive()
            gate.set()
            assert not blocked
        server.shutdown()
        thread.join(ENOUGH_S)


def _ask_in_vain(client: OpenpiClient) -> None:
    with contextlib.suppress(RemoteError):
        client.infer({"image": np.zeros(64 << 20, np.uint8)}, 0.2)


def test_bad_metadata_is_one_failure_and_lengthens_the_pause_once() -> None:
    with (
        PolicyServer(lambda seen: b"", metadata=b"garbage") as server,
        client_of(server.endpoint) as (client, clock),
    ):
        for pause_s in ("0.2", "0.5", "1.0"):
            with pytest.raises(RemoteError, match="not a message"):
                client.open(ENOUGH_S)
            with pytest.raises(RemoteError, match=f"trying again in {pause_s}"):
                client.open(ENOUGH_S)
            clock.now_s += 1.01 * float(pause_s) + 0.1


def test_an_address_that_cannot_be_looked_up_is_one_line() -> None:
    check_remote_endpoint("wss://a..b:8000")
    with client_of("wss://a..b:8000") as (client, _), pytest.raises(RemoteError, match="no usable address") as told:
        client.infer({}, ENOUGH_S)
    assert "\n" not in str(told.value)


def test_a_server_that_is_gone_is_sought_again_with_growing_pauses() -> None:
    with PolicyServer(lambda seen: chunk_answer(ACTIONS)) as server, client_of(server.endpoint) as (client, clock):
        client.infer({}, ENOUGH_S)
        port = server.port
        server.__exit__(None, None, None)
        pauses = []
        for _ in range(7):
            with pytest.raises(RemoteError, match=r"is gone|cannot be reached"):
                client.infer({}, ENOUGH_S)
            with pytest.raises(RemoteError, match="trying again in") as told:
                client.infer({}, ENOUGH_S)
            pause_s = float(str(told.value).rpartition(" in ")[2].split()[0])
            pauses.append(pause_s)
            clock.now_s += pause_s + 0.1
        assert pauses == sorted(pauses)
        assert pauses[-1] == 8.0
        with PolicyServer(lambda seen: chunk_answer(ACTIONS), port=port):
            client.infer({}, ENOUGH_S)
            assert client.metadata["policy"] == "test"
            client.close()


def test_one_who_speaks_something_else_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=talk)
        thread.start()
        endpoint, told = f"ws://127.0.0.1:{listener.getsockname()[1]}", r"HTTP 200|no websocket"
        with client_of(endpoint) as (client, _), pytest.raises(RemoteError, match=told):
            client.infer({}, ENOUGH_S)
        thread.join(ENOUGH_S)


@pytest.mark.parametrize(
    "data", [b"garbage", msgpack.packb({"actions": hostile(shape=[2**40])})], ids=["garbage", "huge"]
)
def test_a_garbled_answer_ends_the_connection_in_one_line(data: bytes) -> None:
    with PolicyServer(lambda seen: data) as server, client_of(server.endpoint) as (client, _):
        with pytest.raises(RemoteError) as told:
            client.infer({}, ENOUGH_S)
        assert "\n" not in str(told.value)


def test_a_chunk_beyond_the_rest_of_a_message_is_taken_where_it_was_announced() -> None:
    actions = np.zeros((MAX_MESSAGE_BYTES // 80, 10))
    with PolicyServer(lambda seen: chunk_answer(actions)) as server:
        client = OpenpiClient(server.endpoint, chunk_bytes=actions.nbytes)
        try:
            assert client.infer({}, ENOUGH_S)["actions"].shape == actions.shape
        finally:
            client.close()


def test_an_answer_that_is_too_long_is_not_even_taken_in() -> None:
    with (
        PolicyServer(lambda seen: bytes(MAX_MESSAGE_BYTES + 1)) as server,
        client_of(server.endpoint) as (client, _),
        pytest.raises(RemoteError, match="is gone"),
    ):
        client.infer({}, ENOUGH_S)

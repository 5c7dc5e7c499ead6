"""The openpi protocol: bytes as the reference has them, against a real websocket server, and hostile ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from websockets.sync.server import ServerConnection, serve

from policy.chunk_source import ChunkRequest, MisshapenChunkError
from policy.manifest_file import read_manifest
from policy.openpi_client import OpenpiClient, RemoteError
from policy.openpi_wire import MAX_MESSAGE_BYTES, pack, unpack
from policy.remote_policy import RemotePolicy, RemoteSettings, check_remote_endpoint
from robot.errors import BadInputError
from tests.openpi_server import PolicyServer, chunk_answer, wire_array
from tests.remote_bundle_bench import CHUNK, make_remote_bundle
from tests.tiny_bundle import CAMERAS

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


def test_arrays_go_over_the_wire_as_the_reference_puts_them() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    state = np.array([1.5, -2.5], np.float32)
    data = pack({"observation/image": image, "observation/state": state, "prompt": "pick", "x": np.float32(0.5)})
    assert data == msgpack.packb(
        {
            "observation/image": wire_array(image),
            "observation/state": wire_array(state),
            "prompt": "pick",
            "x": {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"},
        }
    )


@given(
    hnp.arrays(
        st.sampled_from(["u1", "i1", "?", "<i2", "<i4", "<i8", "<u2", "<f2", "<f4", "<f8"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_every_array_comes_back_with_its_type_shape_and_bytes(values: np.ndarray) -> None:
    got = unpack(pack({"a": values, "deep": {"b": [values]}}))
    for found in (got["a"], got["deep"]["b"][0]):
        assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())


@pytest.mark.parametrize("values", [np.array([None]), np.array([1j]), np.zeros(1, "V8"), np.array(["a"])])
def test_nothing_else_than_numbers_is_sent(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array type"):
        pack({"a": values})


def hostile(**changes: object) -> dict[bytes, Any]:
    return wire_array(np.zeros((2, 3), np.float32)) | {key.encode(): value for key, value in changes.items()}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"actions": hostile(dtype="|O")}, "array type"),
        ({"actions": hostile(dtype="<c16")}, "array type"),
        ({"actions": hostile(dtype="|V24")}, "array type"),
        ({"actions": hostile(dtype=["a", "<f4"])}, "array type"),
        ({"actions": hostile(dtype=">f4")}, "array type"),
        ({"actions": hostile(dtype=None)}, "array type"),
        ({"actions": hostile(shape=[2, 4])}, "24 bytes"),
        ({"actions": hostile(shape=[2**40, 2**40])}, "shape"),
        ({"actions": hostile(shape=[-2, -3])}, "shape"),
        ({"actions": hostile(shape=[2.0, 3.0])}, "shape"),
        ({"actions": hostile(shape=[True, 6])}, "shape"),
        ({"actions": hostile(shape=6)}, "shape"),
        ({"actions": hostile(shape=[1] * 40)}, "shape"),
        ({"actions": hostile(shape=[MAX_MESSAGE_BYTES] * 8)}, "24 bytes"),
        ({"actions": hostile(data="text")}, "str"),
        ({"actions": {b"__ndarray__": True}}, "array type"),
        ({"actions": {b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}}, "scalar"),
        ({"actions": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}, "scalar"),
        ({"actions": msgpack.ExtType(5, b"abc")}, "protocol"),
        ({"actions": msgpack.Timestamp(1)}, "protocol"),
        ([1, 2], "map"),
        ({1: 2}, "map"),
        ({"a": list(range(5000))}, "protocol"),
    ],
)
def test_a_message_that_lies_is_refused(content: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unpack(msgpack.packb(content))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x81\xa1a", b"\x91" * 3000, b"\x00\x00", b"\xdd\xff\xff\xff\xff"],
    ids=["empty", "unused byte", "cut", "nested", "two", "endless list"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_read_or_be_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(unpack(data), dict)


@pytest.mark.parametrize("empty", [[], {}], ids=["lists", "maps"])
def test_a_short_message_that_would_take_much_memory_is_refused_early(empty: object) -> None:
    data = msgpack.packb({str(k): [[empty] * 200] * 20 for k in range(200)})
    assert len(data) < MAX_MESSAGE_BYTES
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 256 maps and lists"):
        unpack(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_chunk_beyond_the_rest_of_a_message_is_taken_where_it_was_announced() -> None:
    actions = np.zeros((MAX_MESSAGE_BYTES // 80, 10))
    with PolicyServer(lambda seen: chunk_answer(actions)) as server:
        client = OpenpiClient(server.endpoint, chunk_bytes=actions.nbytes)
        try:
            assert client.infer({}, ENOUGH_S)["actions"].shape == actions.shape
        finally:
            client.close()


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        unpack(bytes(MAX_MESSAGE_BYTES + 1))


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


def test_an_answer_that_is_too_long_is_not_even_taken_in() -> None:
    with (
        PolicyServer(lambda seen: bytes(MAX_MESSAGE_BYTES + 1)) as server,
        client_of(server.endpoint) as (client, _),
        pytest.raises(RemoteError, match="is gone"),
    ):
        client.infer({}, ENOUGH_S)


@pytest.mark.parametrize(
    "endpoint",
    ["ws://127.0.0.1:8000", "ws://localhost:8000", "ws://[::1]:8000", "wss://policy.example:443", "wss://10.0.0.7"],
)
def test_addresses_on_this_machine_or_with_tls_are_allowed(endpoint: str) -> None:
    check_remote_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["", "127.0.0.1:8000", "http://127.0.0.1", "ws://", "ws://10.0.0.7:8000", "ws://policy.example:8000", "ws://[::1",
     "ws://127.0.0.1:99999", "wss://user:word@host", "ws://0.0.0.0:8000"],
)  # fmt: skip
def test_other_addresses_are_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(BadInputError, match="endpoint: ") as told:
        check_remote_endpoint(endpoint)
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote_bundle(tmp_path_factory.mktemp("remote") / "bundle")


def observed() -> ChunkRequest:
    rng = np.random.default_rng(0)
    return ChunkRequest(
        tick=3,
        asked_s=10.0,
        features=np.zeros(8, np.float32),
        proprio=np.array([0.4, 0.1, 0.2, 0.02], np.float32),
        images={name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in CAMERAS.items()},
    )


def settings(endpoint: str, **changes: Any) -> RemoteSettings:
    return RemoteSettings.model_validate({"endpoint": endpoint, "prompt": "pick", "deadline_s": ENOUGH_S, **changes})


def test_a_bundle_says_the_observation_in_the_servers_words_and_the_chunk_in_ours(folder: Path) -> None:
    manifest, asked = read_manifest(folder)[0], observed()
    with PolicyServer(lambda seen: chunk_answer(ACTIONS)) as server:
        policy = RemotePolicy(manifest, settings(server.endpoint))
        chunk = policy.act(asked)
        policy.close()
    [seen] = server.seen
    assert seen == {
        "observation/front": wire_array(asked.images["front"]),
        "observation/wrist": wire_array(asked.images["wrist"]),
        "observation/tcp": wire_array(asked.proprio[:3]),
        "observation/gripper": wire_array(np.array([1.0 - 12.5 * np.float32(0.02)], np.float32)),
        "prompt": "pick",
    }
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(chunk[:, :4], 0.5 * ACTIONS[:, :4], atol=1e-6)
    np.testing.assert_allclose(chunk[:, 4], 1.0 - 2.0 * ACTIONS[:, 4], atol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        chunk_answer(ACTIONS[:-1]),
        chunk_answer(ACTIONS[:, :-1]),
        chunk_answer(ACTIONS > 0.0),
        msgpack.packb({"actions": [1.0, 2.0]}),
        msgpack.packb({"action": wire_array(ACTIONS)}),
    ],
    ids=["short", "narrow", "truth values", "list", "other name"],
)
def test_another_shape_is_no_chunk(folder: Path, answer: bytes) -> None:
    with PolicyServer(lambda seen: answer) as server:
        policy = RemotePolicy(read_manifest(folder)[0], settings(server.endpoint))
        with pytest.raises(MisshapenChunkError, match="the bundle says"):
            policy.act(observed())
        policy.close()


def test_numbers_that_are_not_finite_are_passed_on_for_the_rule_to_reject(folder: Path) -> None:
    sick = ACTIONS.copy()
    sick[2, 1] = np.inf
    with PolicyServer(lambda seen: chunk_answer(sick)) as server:
        policy = RemotePolicy(read_manifest(folder)[0], settings(server.endpoint))
        assert np.isinf(policy.act(observed())[2, 1])
        policy.close()


def test_a_key_that_the_environment_lacks_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICY_KEY", raising=False)
    with pytest.raises(BadInputError, match="POLICY_KEY"):
        RemotePolicy(read_manifest(folder)[0], settings("ws://127.0.0.1:1", api_key_variable="POLICY_KEY"))

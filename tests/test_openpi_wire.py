"""Numbers over the wire, byte by byte; what is no such message is refused before it costs anything."""

from __future__ import annotations

import contextlib
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policy.openpi_wire import MAX_MESSAGE_BYTES, pack, unpack
from tests.openpi_server import hostile, wire_array


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


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        unpack(bytes(MAX_MESSAGE_BYTES + 1))

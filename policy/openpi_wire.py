"""Messages of the openpi websocket protocol: msgpack with numpy arrays as maps, read without trusting a byte.

An array is `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}`, as in the PyPI package openpi-client 0.1.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

MAX_MESSAGE_BYTES = 1 << 20  # beside the chunk
_MAX_DIMENSIONS = 8
_MAX_ENTRIES = 256  # of one map or list
_MAX_CONTAINERS = 256  # maps, arrays and lists; an empty one is a byte on the wire and some sixty here
_MAX_SIZE = 1 << 40  # of one dimension, before it is multiplied
_DTYPES = frozenset(
    order + kind
    for order, kinds in (("|", ("b1", "i1", "u1")), ("<", ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")))
    for kind in kinds
)
_dumps: Callable[..., bytes] = msgpack.dumps
_loads: Callable[..., Any] = msgpack.loads
_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"


def pack(message: Mapping[str, object]) -> bytes:
    """Return the bytes of a map whose values are arrays, numbers, texts, or maps and lists of them.

    Raises:
        ValueError: an array has a type that does not go over the wire.
    """
    return _dumps(message, default=_packed)


def unpack(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """Return the map in `data`, of at most `max_bytes`; its arrays are read-only views.

    Raises:
        ValueError: too long, too many parts, not msgpack, no map with text keys, or an array that lies about itself.
    """
    if len(data) > max_bytes:
        raise ValueError(f"a message of {len(data)} bytes (at most {max_bytes})")
    left = itertools.count(_MAX_CONTAINERS, -1)

    def counted(found: Any) -> Any:
        if next(left) <= 0:
            raise ValueError(f"more than {_MAX_CONTAINERS} maps and lists")
        return found

    try:
        content = _loads(
            data,
            object_hook=lambda found: _read(counted(found)),
            list_hook=counted,
            max_ext_len=0,  # timestamps among them: the protocol has none
            max_array_len=_MAX_ENTRIES,
            max_map_len=_MAX_ENTRIES,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            strict_map_key=False,  # the keys of an array's map are bytes
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(f"not a message of the protocol ({_first_line(error)})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError("not a map with text keys")
    return content


def _packed(value: object) -> object:
    if isinstance(value, np.ndarray):
        dtype = _allowed(value.dtype.str)
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: dtype, _SHAPE: value.shape}
    if isinstance(value, np.generic):
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: _allowed(value.dtype.str)}
    raise ValueError(f"{type(value).__name__} does not go over the wire")


def _read(found: dict[Any, Any]) -> object:
    if _ARRAY in found:
        return _array(found)
    if _SCALAR in found:
        dtype, value = np.dtype(_allowed(found.get(_DTYPE))), found.get(_DATA)
        if not isinstance(value, (bool, int, float)):
            raise ValueError(f"a scalar that is a {type(value).__name__}")
        with np.errstate(all="raise"):
            try:
                return dtype.type(value)
            except (OverflowError, FloatingPointError):
                raise ValueError(f"a scalar that is no {dtype}") from None
    return found


def _array(found: dict[Any, Any]) -> NDArray[Any]:
    dtype, shape, data = np.dtype(_allowed(found.get(_DTYPE))), found.get(_SHAPE), found.get(_DATA)
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array whose shape is no short list")
    if not all(type(size) is int and 0 <= size < _MAX_SIZE for size in shape):
        raise ValueError(f"an array of shape {shape}")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        size = len(data) if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"an array of shape {shape} and type {dtype.str} in {size} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _allowed(dtype: object) -> str:
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"array type {dtype!r:.40} (allowed {', '.join(sorted(_DTYPES))})")
    return dtype


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""The header of a weights message: every length, name and type in it is checked before anything is parsed by it."""

from __future__ import annotations

import enum
import json
import math
import re
import struct
from typing import Any

from robot.errors import HandrailError

MAX_MESSAGE_BYTES = 64 << 20
MAX_HEADER_BYTES = 64 << 10
MAX_TENSORS = 256

METADATA_PATTERNS = {
    "schema_version": r"[0-9]{1,4}",
    "weights_version": r"0|[1-9][0-9]{0,14}",
    "run_id": r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}",
    "bundle_sha256": r"[0-9a-f]{64}",
    "feature_size": r"[1-9][0-9]{0,4}",
    "proprio_size": r"0|[1-9][0-9]{0,4}",
    "action_size": r"[1-9][0-9]{0,2}",
    "created_utc": r"[0-9T:.+Z-]{1,40}",
    "sha256": r"[0-9a-f]{64}",
}
TENSOR_NAME = re.compile(
    r"scale|spread\.bounds|gripper\.dimension|normaliser\.(mean|std|clip|mask)"
    r"|encoder\.(pictures|[0-7]\.([0-9]\.(weight|bias)|maps\.weight))"
    r"|(actor|gate\.[0-9]{1,2})\.([0-9]{1,2}(\.norm)?|out)\.(weight|bias)"
)


class RefusalReason(enum.Enum):
    """Why a weights message was refused."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    SCHEMA = "schema"
    CHECKSUM = "checksum"
    BUNDLE = "bundle"
    RUN = "run"
    SHAPE = "shape"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    OLDER = "older"
    SATURATED = "saturated"


class WeightsRefused(HandrailError):  # noqa: N818 (an outcome that the learner is told of, not a fault)
    """A message that must not reach the arm; the weights in force stay."""

    def __init__(self, reason: RefusalReason, text: str) -> None:
        super().__init__(f"weights refused ({reason.value}): {text}")
        self.reason = reason


def read_header(message: bytes) -> dict[str, str]:
    """Return the metadata; every name, type, shape and offset in the header is checked against the length."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise WeightsRefused(RefusalReason.TOO_LARGE, f"{len(message)} bytes (at most {MAX_MESSAGE_BYTES})")
    if len(message) < 8:
        raise _malformed(f"{len(message)} bytes")
    (size,) = struct.unpack_from("<Q", message)
    if size > min(MAX_HEADER_BYTES, len(message) - 8):
        raise _malformed(
            f"not safetensors: a header of {size} bytes (at most {MAX_HEADER_BYTES}, message has {len(message)})"
        )
    try:
        header = json.loads(message[8 : 8 + size], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"header is not JSON ({type(error).__name__})") from error
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.keys() != METADATA_PATTERNS.keys():
        raise _malformed("metadata keys are not those of a weights message")
    for key, value in metadata.items():
        if not isinstance(value, str) or not re.fullmatch(METADATA_PATTERNS[key], value, re.ASCII):
            raise _malformed(f"metadata '{key}' is not valid")
    if len(header) > MAX_TENSORS:
        raise _malformed(f"{len(header)} tensors (at most {MAX_TENSORS})")
    spans = sorted(_span(name, entry) for name, entry in header.items())
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise _malformed("tensors overlap or leave gaps")
        end = stop
    if end != len(message) - 8 - size:
        raise _malformed("tensors do not fill the message")
    return metadata


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return (begin, end) of one tensor's bytes [bytes]."""
    if not TENSOR_NAME.fullmatch(name):
        raise _malformed("a tensor has an unknown name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"} or entry["dtype"] != "F32":
        raise _malformed(f"tensor '{name}' is not described as float32")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or not 1 <= len(shape) <= 2 or len(offsets) != 2:
        raise _malformed(f"tensor '{name}' has no valid shape or offsets")
    if offsets[1] - offsets[0] != 4 * math.prod(shape):
        raise _malformed(f"tensor '{name}' has another length than its shape says")
    return offsets[0], offsets[1]


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_MESSAGE_BYTES for value in values)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _malformed(text: str) -> WeightsRefused:
    return WeightsRefused(RefusalReason.MALFORMED, text)

"""The weights message: what the learner sends and the robot takes, safetensors bytes with a checksum.

Nothing in the bytes is believed before it is checked: sizes before they are used, the checksum before the
values, the values before they come near an arm. The checksum covers the metadata and every tensor.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from policy.residual import Dims, Float, ResidualHead, zero_tensors
from robot.errors import HandrailError

SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 64 << 20
MAX_HEADER_BYTES = 64 << 10
MAX_TENSORS = 256

_PATTERNS = {
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
_NAME = re.compile(
    r"scale|normaliser\.(mean|std|clip|mask)|(actor|gate\.[0-9]{1,2})\.([0-9]{1,2}(\.norm)?|out)\.(weight|bias)"
)


class RefusalReason(enum.Enum):
    """Why a weights message was refused."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    SCHEMA = "schema"
    CHECKSUM = "checksum"
    BUNDLE = "bundle"
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


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a message must match before a robot takes it.

    Attributes:
        dims: the sizes of the base policy in force.
        bundle_sha256: content hash of that policy; its features mean nothing to weights trained on another.
        max_scale: greatest residual bound that the station allows, normalised; a learner cannot raise it.
    """

    dims: Dims
    bundle_sha256: str
    max_scale: float


@dataclass(frozen=True, kw_only=True)
class ResidualWeights:
    """A checked set of weights.

    Attributes:
        version: counts up by one per publication of the learner; 0 is the zero head at the start.
        run_id: the run that the learner learned from.
        bundle_sha256: content hash of the base policy.
        created_utc: ISO 8601.
        tensors: by name, read-only, see `policy.residual`.
        head: the same, ready to run.
        sha256: over metadata and tensors [hex].
    """

    version: int
    run_id: str
    bundle_sha256: str
    created_utc: str
    tensors: Mapping[str, Float]
    head: ResidualHead
    sha256: str


def pack(
    *,
    version: int,
    run_id: str,
    bundle_sha256: str,
    dims: Dims,
    tensors: Mapping[str, Float],
    created_utc: str | None = None,
) -> bytes:
    """Return the message for `tensors` (float32, named as in `policy.residual`).

    Raises:
        ValueError: a field or a tensor name is not one that `unpack` would take.
    """
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "weights_version": str(version),
        "run_id": run_id,
        "bundle_sha256": bundle_sha256,
        "feature_size": str(dims.features),
        "proprio_size": str(dims.proprio),
        "action_size": str(dims.action),
        "created_utc": created_utc or datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
    }
    for key, value in metadata.items():
        if not re.fullmatch(_PATTERNS[key], value):
            raise ValueError(f"weights metadata '{key}' is {value!r}, must match {_PATTERNS[key]}")
    for name, tensor in tensors.items():
        if not _NAME.fullmatch(name) or tensor.dtype != np.float32:
            raise ValueError(f"tensor '{name}' ({tensor.dtype}) is not one of a residual head (float32)")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata["sha256"] = _checksum(metadata, contiguous)
    return safetensors.numpy.save(contiguous, metadata)


def unpack(message: bytes, expected: Expected) -> ResidualWeights:
    """Return the weights in `message` after every check that needs neither history nor observations.

    Raises:
        WeightsRefused: and nothing else, whatever the bytes.
    """
    metadata = _read_header(message)
    if int(metadata["schema_version"]) != SCHEMA_VERSION:
        raise WeightsRefused(
            RefusalReason.SCHEMA,
            f"schema_version is {metadata['schema_version']} (this robot reads {SCHEMA_VERSION}); "
            "run the learner of the same release",
        )
    try:
        tensors = safetensors.numpy.load(message)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsRefused(RefusalReason.MALFORMED, f"not safetensors ({error})") from error
    if _checksum(metadata, tensors) != metadata["sha256"]:
        raise WeightsRefused(RefusalReason.CHECKSUM, "content does not match its SHA-256; send it again")
    if metadata["bundle_sha256"] != expected.bundle_sha256:
        raise WeightsRefused(
            RefusalReason.BUNDLE,
            f"trained on bundle {metadata['bundle_sha256'][:12]}, this robot runs {expected.bundle_sha256[:12]}; "
            "start the learner with the robot's bundle",
        )
    dims = Dims(
        features=int(metadata["feature_size"]),
        proprio=int(metadata["proprio_size"]),
        action=int(metadata["action_size"]),
    )
    if dims != expected.dims:
        raise WeightsRefused(RefusalReason.SHAPE, f"made for {dims}, this robot needs {expected.dims}")
    for tensor in tensors.values():
        tensor.setflags(write=False)
    try:
        with np.errstate(all="ignore"):  # values are judged below
            head = ResidualHead(dims, tensors)
    except ValueError as error:
        raise WeightsRefused(RefusalReason.SHAPE, str(error)) from error
    _check_values(tensors, expected)
    return ResidualWeights(
        version=int(metadata["weights_version"]),
        run_id=metadata["run_id"],
        bundle_sha256=metadata["bundle_sha256"],
        created_utc=metadata["created_utc"],
        tensors=tensors,
        head=head,
        sha256=metadata["sha256"],
    )


def initial_weights(*, run_id: str, bundle_sha256: str, dims: Dims, scale: Float) -> bytes:
    """Return the message of version 0: a head that gives exactly 0, the same bytes' content on every start."""
    tensors = zero_tensors(dims, scale)
    created_utc = "1970-01-01T00:00:00+00:00"  # so that its SHA-256 depends on what it does only
    return pack(
        version=0, run_id=run_id, bundle_sha256=bundle_sha256, dims=dims, tensors=tensors, created_utc=created_utc
    )


def _check_values(tensors: Mapping[str, Float], expected: Expected) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsRefused(RefusalReason.NOT_FINITE, f"tensor '{name}' has NaN or infinity")
    scale = tensors["scale"]
    # the bound is compared in float32, as the learner could send no other number
    if (scale < 0.0).any() or (scale > np.float32(expected.max_scale)).any():
        raise WeightsRefused(
            RefusalReason.OUT_OF_RANGE,
            f"scale reaches {scale.min():g} to {scale.max():g} (allowed 0 to {expected.max_scale:g})",
        )
    if (tensors["normaliser.std"] < 1e-6).any() or not 0.0 < tensors["normaliser.clip"][0] <= 1e3:
        raise WeightsRefused(RefusalReason.OUT_OF_RANGE, "normaliser.std must be >= 1e-6 and clip within (0, 1000]")
    mask = tensors.get("normaliser.mask")
    if mask is not None and not np.isin(mask, (0.0, 1.0)).all():
        raise WeightsRefused(RefusalReason.OUT_OF_RANGE, "normaliser.mask must hold 0 and 1 only")


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Float]) -> str:
    """SHA-256 over the metadata (its own entry left out) and the tensors, both in the order of their names."""
    digest = hashlib.sha256()
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    digest.update(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _read_header(message: bytes) -> dict[str, str]:
    """Return the metadata; every name, type, shape and offset in the header is checked against the length."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise WeightsRefused(RefusalReason.TOO_LARGE, f"{len(message)} bytes (at most {MAX_MESSAGE_BYTES})")
    if len(message) < 8:
        raise _malformed(f"{len(message)} bytes")
    (size,) = struct.unpack_from("<Q", message)
    if size > min(MAX_HEADER_BYTES, len(message) - 8):
        raise _malformed(f"header of {size} bytes (at most {MAX_HEADER_BYTES}, message has {len(message)})")
    try:
        header = json.loads(message[8 : 8 + size], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"header is not JSON ({type(error).__name__})") from error
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.keys() != _PATTERNS.keys():
        raise _malformed("metadata keys are not those of a weights message")
    for key, value in metadata.items():
        if not isinstance(value, str) or not re.fullmatch(_PATTERNS[key], value, re.ASCII):
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
    if not _NAME.fullmatch(name):
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

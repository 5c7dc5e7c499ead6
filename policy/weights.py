"""The weights message: what the learner sends and the robot takes, safetensors bytes with a checksum.

Nothing in the bytes is believed before it is checked: sizes before they are used, the checksum before the
values, the values before they come near an arm. The checksum covers the metadata and every tensor.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import safetensors
import safetensors.numpy

from policy.canonical_safetensors import canonical
from policy.manifest import Manifest
from policy.observation_history import MAX_TICKS, PRESENT, HistoryChoice, HistoryTicks, history_of
from policy.residual import Dims, Float, ResidualHead, zero_tensors
from policy.weights_header import METADATA_PATTERNS, TENSOR_NAME, RefusalReason, WeightsRefused, read_header

__all__ = ["Expected", "RefusalReason", "ResidualWeights", "WeightsRefused", "pack", "unpack"]

SCHEMA_VERSION = 1


class ResidualLimits(Protocol):
    """What a station lets a residual do, `teleop.station.ResidualConfig`."""

    @property
    def scale(self) -> tuple[float, ...]:
        """Greatest bound per action dimension, (A,) normalised."""
        ...

    @property
    def gripper(self) -> bool:
        """Whether a gripper head may decide what the gripper does."""
        ...

    @property
    def gate(self) -> bool:
        """Whether critics that travel with the weights must agree to it."""
        ...

    @property
    def history(self) -> HistoryChoice | None:
        """Windows in place of the bundle's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a message must match before a robot takes it.

    Attributes:
        dims: the sizes of the base policy in force, over the whole windows that the residual sees of it.
        bundle_sha256: content hash of that policy; its features mean nothing to weights trained on another.
        max_scale: greatest residual bound that the station allows per action dimension, (A,) normalised; 0 leaves a
            dimension to the base. A learner cannot raise it.
        gripper: the action dimension that a gripper head may decide; None where the station allows none.
        gate: whether weights need critics for a gate; those of version 0, which do nothing, do not.
        history: lengths of those windows.
    """

    dims: Dims
    bundle_sha256: str
    max_scale: tuple[float, ...]
    gripper: int | None = None
    gate: bool = False
    history: HistoryTicks = PRESENT

    def __post_init__(self) -> None:
        assert len(self.max_scale) == self.dims.action, "one bound per action dimension"

    @classmethod
    def of(cls, manifest: Manifest, limits: ResidualLimits | None) -> Self:
        """Return what a station with this bundle expects; without `limits` no residual but zero."""
        action, history = manifest.action, history_of(manifest, limits)
        dims = window_dims(manifest, history)
        chooses = limits is not None and limits.gripper and "gripper" in action.dims
        return cls(
            dims=dims,
            bundle_sha256=manifest.content_sha256,
            max_scale=limits.scale if limits is not None else (0.0,) * dims.action,
            gripper=action.dims.index("gripper") if chooses else None,
            gate=limits is not None and limits.gate,
            history=history,
        )

    def initial_weights(self, run_id: str) -> bytes:
        """Return the message of version 0: a head that gives exactly 0, the same bytes' content on every start."""
        return pack(
            version=0,
            run_id=run_id,
            bundle_sha256=self.bundle_sha256,
            dims=self.dims,
            tensors=zero_tensors(self.dims, np.array(self.max_scale, np.float32)),
            created_utc="1970-01-01T00:00:00+00:00",  # so that its SHA-256 depends on what it does only
        )


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


def window_dims(manifest: Manifest, history: HistoryTicks) -> Dims:
    """Return the sizes that a residual on this base has with windows of these lengths."""
    return Dims(
        features=manifest.feature_size * history.features_ticks,
        proprio=manifest.proprio_size * history.proprio_ticks,
        action=manifest.action.size,
    )


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
        if not re.fullmatch(METADATA_PATTERNS[key], value):
            raise ValueError(f"weights metadata '{key}' is {value!r}, must match {METADATA_PATTERNS[key]}")
    for name, tensor in tensors.items():
        if not TENSOR_NAME.fullmatch(name) or tensor.dtype != np.float32:
            raise ValueError(f"tensor '{name}' ({tensor.dtype}) is not one of a residual head (float32)")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata["sha256"] = _checksum(metadata, contiguous)
    return canonical(safetensors.numpy.save(contiguous, metadata))


def unpack(message: bytes, expected: Expected) -> ResidualWeights:
    """Return the weights in `message` after every check that needs neither history nor observations.

    Raises:
        WeightsRefused: and nothing else, whatever the bytes.
    """
    metadata = read_header(message)
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
        raise WeightsRefused(RefusalReason.SHAPE, _other_sizes(dims, expected))
    for tensor in tensors.values():
        tensor.setflags(write=False)
    try:
        with np.errstate(all="ignore"):  # values are judged below
            head = ResidualHead(dims, tensors)
    except ValueError as error:
        raise WeightsRefused(RefusalReason.SHAPE, str(error)) from error
    _check_values(tensors, expected)
    if head.gripper is not None and head.gripper != expected.gripper:
        raise WeightsRefused(
            RefusalReason.OUT_OF_RANGE,
            f"a gripper head decides action dimension {head.gripper}, the station allows "
            f"{'none' if expected.gripper is None else expected.gripper}; set residual.gripper, for learner and robot",
        )
    if expected.gate and not head.heads and int(metadata["weights_version"]) > 0:
        raise WeightsRefused(
            RefusalReason.OUT_OF_RANGE,
            "no critics for the gate that the station asks for, so that nothing would hold the residual back; set "
            "residual.gate for the learner, too, or set it to false here",
        )
    return ResidualWeights(
        version=int(metadata["weights_version"]),
        run_id=metadata["run_id"],
        bundle_sha256=metadata["bundle_sha256"],
        created_utc=metadata["created_utc"],
        tensors=tensors,
        head=head,
        sha256=metadata["sha256"],
    )


def _other_sizes(dims: Dims, expected: Expected) -> str:
    """Say in what the sizes differ; with the right bundle, and they name it, it is the windows."""
    text = f"made for {dims}, this robot needs {expected.dims}"
    changes = []
    for name in ("features", "proprio"):
        here = expected.history.ticks(name)
        size = getattr(expected.dims, name) // here  # of one tick
        ticks, rest = divmod(getattr(dims, name), max(size, 1))
        if rest or not 1 <= ticks <= MAX_TICKS or dims.action != expected.dims.action:
            return text
        if ticks != here:
            changes.append(f"{name}_ticks {ticks}")
    return f"{text}: they see another window; set residual.history ({', '.join(changes)})"


def _check_values(tensors: Mapping[str, Float], expected: Expected) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsRefused(RefusalReason.NOT_FINITE, f"tensor '{name}' has NaN or infinity")
    scale = tensors["scale"]
    # the bound is compared in float32, as the learner could send no other number
    outside = (scale < 0.0) | (scale > np.array(expected.max_scale, np.float32))
    if outside.any():
        found, allowed = (", ".join(f"{value:g}" for value in values) for values in (scale, expected.max_scale))
        raise WeightsRefused(
            RefusalReason.OUT_OF_RANGE,
            f"scale is ({found}), outside 0 to ({allowed}) in action dimension {int(np.argmax(outside))}; "
            "start the learner with the robot's residual.scale",
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

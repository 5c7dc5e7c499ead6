"""What the robot and the learner say to each other: msgpack maps with a schema version, bounded and checked.

A message is a digest of its body, then the body. Nothing in it is ever executed or unpickled. A message that breaks
any rule raises `MalformedMessageError` and has changed nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from policy.episode_header import Outcome, RunId
from policy.learner_episode import HOLD, RESET, EpisodeArrays, EpisodeKey
from policy.manifest import Sha256
from robot.errors import HandrailError
from robot.strict import Strict

SCHEMA_VERSION = 3
DIGEST_BYTES = 16
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_TICKS = 100_000
MAX_WIDTH = 4096
MAX_MAGNITUDE = 1e6  # nothing that a robot feels or does, in SI or normalised, comes near it
MAX_VERSION = 10**12  # of weights: one a millisecond for thirty years
PAGE_EPISODES = 4096  # that one inventory tells of, in 16 KB
NOT_HERE = -1  # in an inventory, in place of a revision

Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=0, le=MAX_VERSION)]
Reason = Annotated[str, Field(max_length=500)]

# field of EpisodeArrays -> type on the wire and what fixes its second dimension
ARRAYS: dict[str, tuple[str, str | None]] = {
    "index": ("<i8", None),
    "features": ("<f4", "features"),
    "proprio": ("<f4", "proprio"),
    "base": ("<f4", "action"),
    "executed": ("<f4", "action"),
    "human": ("<f4", "action"),
    "engaged": ("|u1", None),
    "source": ("|i1", None),
    "rewards": ("<f4", None),
    "terminated": ("|u1", None),
    "truncated": ("|u1", None),
}
# NaN on any tick means: no observation, no proposal, not engaged
MAY_BE_ABSENT = ("features", "proprio", "base", "human")


class MalformedMessageError(HandrailError):
    """A peer sent something that this version cannot take; it was dropped."""


class _Message(Strict):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[3] = 3


class Hello(_Message):
    """Robot: I am here; highest weights version that I received, that I answered, that is in force (0: none)."""

    type: Literal["hello"] = "hello"
    run_id: RunId
    received: Version
    answered: Version
    in_force: Version

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if max(self.answered, self.in_force) > self.received:
            raise ValueError("nobody answers or uses weights before they came")
        return self


class Question(_Message):
    """Robot: which of my episodes `first` to `first + count - 1` do you have?"""

    type: Literal["question"] = "question"
    run_id: RunId
    first: Count
    count: Annotated[int, Field(ge=1, le=PAGE_EPISODES)]


class WeightsReply(_Message):
    """Robot: what became of weights."""

    type: Literal["weights_reply"] = "weights_reply"
    version: Version
    accepted: bool
    reason: Reason


class WeightsWithdrawn(_Message):
    """Robot: weights that I had accepted failed at work; those before them are in force again."""

    type: Literal["weights_withdrawn"] = "weights_withdrawn"
    version: Version
    reason: Reason


class ArrayMessage(Strict):
    """One array: C order, little endian."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Literal["<f4", "<i8", "|u1", "|i1"]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_TICKS)]], Field(min_length=1, max_length=2)]
    data: bytes


class EpisodeMessage(_Message):
    """Robot: a committed episode, without images."""

    type: Literal["episode"] = "episode"
    run_id: RunId
    episode: Count
    revision: Count
    outcome: Annotated[Outcome, Field(strict=False)]
    complete: bool
    open_loop: bool
    demonstration: bool
    bundle_sha256: Sha256 | None
    arrays: dict[str, ArrayMessage]


class Welcome(_Message):
    """Learner: answer to hello. `learner` differs for each start of a learner."""

    type: Literal["welcome"] = "welcome"
    learner: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Inventory(_Message):
    """Learner: the newest revision that I have of each episode asked for, int32; -1 where I have none."""

    type: Literal["inventory"] = "inventory"
    run_id: RunId
    first: Count
    revisions: Annotated[bytes, Field(min_length=4, max_length=4 * PAGE_EPISODES)]

    @classmethod
    def of(cls, question: Question, newest: Callable[[str, int], int]) -> Self:
        """Answer `question`; `newest` gives the revision by run and episode, -1 for none."""
        numbers = range(question.first, question.first + question.count)
        revisions = np.array([newest(question.run_id, number) for number in numbers])
        # a revision beyond 2 billion is none that a person gave, and is sent again
        data = np.where(revisions < 2**31, revisions, NOT_HERE).astype("<i4").tobytes()
        return cls(run_id=question.run_id, first=question.first, revisions=data)

    def newest(self) -> dict[int, int]:
        """Return episode -> revision of those that are there."""
        revisions = np.frombuffer(self.revisions[: len(self.revisions) // 4 * 4], "<i4")
        return {self.first + int(at): int(revisions[at]) for at in np.flatnonzero(revisions >= 0)}


class Acknowledge(_Message):
    """Learner: the episode is in my store, was there before, or will never be."""

    type: Literal["acknowledge"] = "acknowledge"
    run_id: RunId
    episode: Count
    revision: Count
    status: Literal["stored", "known", "refused"]
    reason: Reason


class Weights(_Message):
    """Learner: weights, as `policy.weights` packs them."""

    type: Literal["weights"] = "weights"
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    payload: bytes


RobotMessage = Hello | Question | WeightsReply | WeightsWithdrawn | EpisodeMessage
LearnerMessage = Welcome | Inventory | Acknowledge | Weights
M = TypeVar("M")
_dumps: Callable[..., bytes] = msgpack.dumps
_loads: Callable[..., Any] = msgpack.loads
_ROBOT: TypeAdapter[RobotMessage] = TypeAdapter(Annotated[RobotMessage, Field(discriminator="type")])
_LEARNER: TypeAdapter[LearnerMessage] = TypeAdapter(Annotated[LearnerMessage, Field(discriminator="type")])


def pack(message: _Message) -> bytes:
    """Return `message` as bytes. Raises MalformedMessageError when they exceed the bound."""
    data = sealed(_dumps(message.model_dump(), use_bin_type=True))
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(
            f"message has {len(data)} bytes (limit {MAX_MESSAGE_BYTES}); end episodes sooner or lower the rate"
        )
    return data


def sealed(body: bytes) -> bytes:
    """Return `body` behind its digest: numbers that a bad disk or line changed must not be learned from."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() + body


def unpack_robot(data: bytes) -> RobotMessage:
    """Return what a robot sent. Raises MalformedMessageError."""
    return _checked(_ROBOT, data)


def unpack_learner(data: bytes) -> LearnerMessage:
    """Return what a learner sent. Raises MalformedMessageError."""
    return _checked(_LEARNER, data)


def _checked(adapter: TypeAdapter[M], data: bytes) -> M:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(f"message has {len(data)} bytes (limit {MAX_MESSAGE_BYTES})")
    body = data[DIGEST_BYTES:]
    if data != sealed(body):
        raise MalformedMessageError("message does not match its digest, or comes from another release")
    try:
        content = _loads(
            body, raw=False, strict_map_key=True, max_array_len=16, max_map_len=32, max_ext_len=0, max_str_len=1024
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedMessageError(f"message is not the msgpack we speak: {type(error).__name__}") from error
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedMessageError(f"message field {where or 'type'}: {first['msg']}") from error


def episode_message(episode: EpisodeArrays) -> EpisodeMessage:
    """Return `episode` for the wire."""
    arrays = {}
    for name, (kind, _) in ARRAYS.items():
        values = np.ascontiguousarray(getattr(episode, name)).astype(kind)
        arrays[name] = ArrayMessage(dtype=kind, shape=list(values.shape), data=values.tobytes())  # type: ignore[arg-type]
    return EpisodeMessage(
        run_id=episode.key.run_id,
        episode=episode.key.episode,
        revision=episode.key.revision,
        outcome=episode.outcome,
        complete=episode.complete,
        open_loop=episode.open_loop,
        demonstration=episode.demonstration,
        bundle_sha256=episode.bundle_sha256,
        arrays=arrays,
    )


def episode_arrays(message: EpisodeMessage) -> EpisodeArrays:
    """Return the episode in `message`. Raises MalformedMessageError when an array is not what it must be."""
    if message.arrays.keys() != ARRAYS.keys():
        odd = sorted(message.arrays.keys() ^ ARRAYS.keys())
        raise MalformedMessageError(f"episode arrays missing or unknown: {', '.join(odd)[:200]}")
    arrays = {name: _array(name, entry) for name, entry in message.arrays.items()}
    ticks = len(arrays["source"])
    if ticks == 0:
        raise MalformedMessageError("episode has no ticks")
    widths: dict[str, int] = {}
    for name, (_, width) in ARRAYS.items():
        if len(arrays[name]) != ticks:
            raise MalformedMessageError(f"array {name} has {len(arrays[name])} ticks, source has {ticks}")
        if width is not None and widths.setdefault(width, arrays[name].shape[1]) != arrays[name].shape[1]:
            raise MalformedMessageError(f"array {name} is {arrays[name].shape[1]} wide, not {widths[width]}")
    source = arrays["source"]
    if ((source < 0) | (source > RESET)).any() or (np.diff(arrays["index"]) < 1).any():
        raise MalformedMessageError(f"source must be 0 to {RESET} and index must rise")
    acting = source < HOLD
    for name in ("features", "proprio", "base", "executed", "human", "rewards"):
        values = arrays[name]
        absent = np.isnan(values) if name in MAY_BE_ABSENT else np.isnan(values) & ~_as(acting, values)
        if not (absent | (np.abs(values) <= MAX_MAGNITUDE)).all():
            raise MalformedMessageError(f"array {name} holds a value that is not finite or beyond {MAX_MAGNITUDE:g}")
    return EpisodeArrays(
        key=EpisodeKey(message.run_id, message.episode, message.revision),
        outcome=message.outcome,
        complete=message.complete,
        open_loop=message.open_loop,
        demonstration=message.demonstration,
        bundle_sha256=message.bundle_sha256,
        **arrays,
    )


def _as(mask: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.bool_]:
    return mask.reshape(-1, *([1] * (values.ndim - 1)))


def _array(name: str, entry: ArrayMessage) -> NDArray[Any]:
    kind, width = ARRAYS[name]
    if entry.dtype != kind:
        raise MalformedMessageError(f"array {name} has dtype {entry.dtype} (allowed {kind})")
    if len(entry.shape) != (1 if width is None else 2) or (width is not None and entry.shape[1] > MAX_WIDTH):
        raise MalformedMessageError(f"array {name} has shape {entry.shape}")
    if len(entry.data) != int(np.prod(entry.shape)) * np.dtype(kind).itemsize:
        raise MalformedMessageError(f"array {name} has {len(entry.data)} bytes for shape {entry.shape}")
    values = np.frombuffer(entry.data, dtype=kind).reshape(entry.shape)
    if kind == "|u1":
        if (values > 1).any():
            raise MalformedMessageError(f"array {name} holds something else than 0 and 1")
        return values.astype(np.bool_)
    return values

"""Who computes action chunks while the loop goes on: the interface, and the in-process version for lock-step."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policy.onnx_session import PolicyError

Array = NDArray[np.float32]
HUNG_DEADLINES = 2.0  # one is bad luck; after two without a word the process behind is taken for hung
KEPT_FAILURES = 100
_SAME_INSTANT_S = 1e-9  # two sums of periods


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """What a chunk is computed from, all of one tick.

    Attributes:
        tick: the tick that asks; the chunk's first action is meant for it.
        asked_s: start of that tick, host monotonic clock [s].
        features: what `encode` gave (F,).
        proprio: (P,).
        images: policy input per camera (H, W, 3) uint8, for a remote policy, which takes no features.
    """

    tick: int
    asked_s: float
    features: Array
    proprio: Array
    images: Mapping[str, NDArray[np.uint8]]


class ReplyKind(enum.IntEnum):
    """What became of a request; the numbers stand in the log."""

    CHUNK = 1
    FAILED = 2  # the policy raised, or could not be reached
    MISSHAPEN = 3  # it answered with something else than a chunk


@dataclass(frozen=True, kw_only=True)
class ChunkReply:
    """The answer to one request.

    Attributes:
        tick: of the request.
        arrived_s: when the answer was there, host monotonic clock [s].
        kind: whether it is a chunk.
        actions: (H, A) as received, finite or not; None without one.
        why: one line for the person where it is none.
    """

    tick: int
    arrived_s: float
    kind: ReplyKind
    actions: Array | None = None
    why: str = ""


class MisshapenChunkError(PolicyError):
    """A policy answered with something else than the chunk that its manifest promises."""


class ChunkSource(Protocol):
    """Takes one request at a time and is never waited for."""

    def ask(self, request: ChunkRequest) -> None:
        """Take a request; one that is not answered yet is given up."""
        ...

    def poll(self, now_s: float) -> ChunkReply | None:
        """Return the newest answer that arrived by `now_s` and was not returned yet, given-up requests' included."""
        ...

    def forget(self) -> None:
        """Drop whatever is asked: tick numbers begin anew."""
        ...

    @property
    def hung(self) -> bool:
        """True when nothing was answered for so long that the process behind it has to be killed."""
        ...

    @property
    def failures(self) -> list[str]:
        """What could not be answered lately, one line each, for the person."""
        ...


def note_failure(failures: list[str], why: str) -> None:
    """Add a line and forget the oldest: a policy may fail on every tick for hours."""
    failures.append(why)
    del failures[:-KEPT_FAILURES]


class ChunkFault(enum.IntEnum):
    """Faults that a source can show, for tests and `--inject`."""

    NONE = 0
    RAISE = 1
    HANG = 2  # no answer, ever
    NAN = 3
    SLOW = 4  # later by the fault's amount [s]


Act = Callable[[ChunkRequest], Array]


class DelayedSource:
    """Computes each chunk at once and hands it over after a delay, for a clock that runs as fast as it can.

    What a run does then depends on the delays only, not on the machine.

    Args:
        act: request to chunk (H, A); raises PolicyError where it cannot.
        delay_s: asked once for each request [s].
        hung_after_s: how long nothing may be answered.
    """

    def __init__(self, act: Act, delay_s: Callable[[], float], *, hung_after_s: float) -> None:
        self._act, self._delay_s, self._hung_after_s = act, delay_s, hung_after_s
        self._waiting: list[ChunkReply] = []
        self._unanswered_s: float | None = None
        self.hung = False
        self.failures: list[str] = []
        self.fault = (ChunkFault.NONE, 0.0)

    def ask(self, request: ChunkRequest) -> None:
        """Compute the chunk now, to be returned later."""
        fault, amount = self.fault
        if self._unanswered_s is None:
            self._unanswered_s = request.asked_s
        if fault is ChunkFault.HANG:
            return
        arrives_s = request.asked_s + self._delay_s() + (amount if fault is ChunkFault.SLOW else 0.0)
        try:
            if fault is ChunkFault.RAISE:
                raise PolicyError("base policy: raises, as was asked of it")
            actions = self._act(request)
            if fault is ChunkFault.NAN:
                actions = np.full_like(actions, np.nan)
            reply = ChunkReply(tick=request.tick, arrived_s=arrives_s, kind=ReplyKind.CHUNK, actions=actions)
        except PolicyError as error:
            note_failure(self.failures, str(error))
            kind = ReplyKind.MISSHAPEN if isinstance(error, MisshapenChunkError) else ReplyKind.FAILED
            reply = ChunkReply(tick=request.tick, arrived_s=arrives_s, kind=kind, why=str(error))
        self._waiting.append(reply)

    def poll(self, now_s: float) -> ChunkReply | None:
        """Return what has arrived in virtual time."""
        there = [reply for reply in self._waiting if reply.arrived_s <= now_s + _SAME_INSTANT_S]
        if there:
            self._waiting = [reply for reply in self._waiting if reply.arrived_s > now_s + _SAME_INSTANT_S]
            self._unanswered_s = None
        since_s = self._unanswered_s
        self.hung = since_s is not None and now_s - since_s > self._hung_after_s
        return max(there, key=lambda reply: reply.tick, default=None)

    def forget(self) -> None:
        """Drop all answers on their way."""
        self._waiting, self._unanswered_s, self.hung = [], None, False

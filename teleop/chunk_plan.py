"""When to ask for the next chunk, and how one takes over from the other: pure, on ticks and measured delays."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policy.chunk_source import ChunkReply, ReplyKind
from policy.episode_schema import DELAY_WINDOW

QUANTILE = 0.75
MAX_REJECTED = 3
_ROUNDING = 1e-6  # of a period; a delay is a difference of two times

Actions = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The base policy's plan in force.

    Attributes:
        actions: (H, A), the first one meant for tick `requested`.
        requested: tick that asked for it.
    """

    actions: Actions
    requested: int

    def at(self, tick: int) -> Actions | None:
        """Return the action meant for `tick` (A,), None where the plan has none."""
        place = tick - self.requested
        return self.actions[place] if 0 <= place < len(self.actions) else None


class ChunkEvent(enum.IntFlag):
    """What happened to requests on a tick; stored as a bit mask per tick."""

    NONE = 0
    ASKED = 1 << 0  # a request went out
    TAKEN = 1 << 1  # its chunk came into force
    LATE = 1 << 2  # the answer to a request that was given up was dropped
    GIVEN_UP = 1 << 3  # nothing came by the deadline
    FAILED = 1 << 4  # the policy raised or could not be reached
    REJECTED = 1 << 5  # not finite, or of another shape
    USED_UP = 1 << 6  # no action is left
    FAULT = 1 << 7  # three rejected in a row: latches
    DROPPED = 1 << 8  # request and chunk, as nothing was seen


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is known about requests from tick to tick.

    Attributes:
        tick: that made the request in flight, -1 without one.
        asked_s: start of that tick [s], NaN without one.
        delays_s: measured from request to answer, the newest last, at most `DELAY_WINDOW` [s].
        rejected: chunks in a row that were none.
    """

    tick: int = -1
    asked_s: float = math.nan
    delays_s: tuple[float, ...] = ()
    rejected: int = 0

    @property
    def waits(self) -> bool:
        """True while a request is in flight."""
        return self.tick >= 0

    def without_request(self) -> Asking:
        """Return the same with none in flight."""
        return replace(self, tick=-1, asked_s=math.nan)


NOTHING_ASKED = Asking()


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """The rule by which chunks are asked for and put into force.

    Attributes:
        period_s: length of a tick [s].
        deadline_s: after this a request is given up [s].
        execute_steps: ticks after its request at which a chunk is to be replaced; the rest of it is the reserve.
        seam_ticks: over so many ticks the plan moves from the old chunk to the new one.
        seam_bound: greatest deviation from the new chunk meanwhile, per dimension, normalised.
        blended: mask (A,) of the dimensions that move over; others, such as a gripper, switch.
    """

    period_s: float
    deadline_s: float
    execute_steps: int
    seam_ticks: int
    seam_bound: float
    blended: NDArray[np.bool_]

    def lead_ticks(self, delays_s: tuple[float, ...]) -> int:
        """How many ticks before it is needed a chunk is asked for, from the delays measured last.

        The lower order statistic at the `QUANTILE` of the window: of two or more delays it is never the greatest, so
        one spike, however long, moves it at most to the next greater of the others, and is forgotten `DELAY_WINDOW`
        answers later. One tick more covers the loop's own jitter. Without a measurement it is asked for at once.
        """
        if not delays_s:
            return self.execute_steps
        delay_s = sorted(delays_s)[int(QUANTILE * (len(delays_s) - 1))]
        delay_s = min(max(delay_s, 0.0), self.deadline_s)
        return max(1, math.ceil(delay_s / self.period_s - _ROUNDING)) + 1

    def due(self, chunk: Chunk | None, asking: Asking, tick: int) -> bool:
        """Return whether to ask now, so that the new chunk is there when the old one is to be replaced."""
        return chunk is None or tick - chunk.requested + self.lead_ticks(asking.delays_s) >= self.execute_steps

    def answered(
        self, asking: Asking, reply: ChunkReply | None, now_s: float, shape: tuple[int, int]
    ) -> tuple[Asking, Chunk | None, ChunkEvent, float]:
        """Judge what arrived and what did not: (asking, new chunk, events, measured delay [s] or NaN).

        Args:
            asking: of the tick before.
            reply: of this tick.
            now_s: start of the tick [s].
            shape: (H, A) of a chunk.
        """
        events, chunk, delay_s = ChunkEvent.NONE, None, math.nan
        if reply is not None:
            delay_s = reply.arrived_s - asking.asked_s
            # written so that a time that is no number counts as late
            if not (asking.waits and reply.tick == asking.tick and 0.0 <= delay_s <= self.deadline_s):
                events, delay_s = ChunkEvent.LATE, math.nan
            elif reply.kind is ReplyKind.FAILED:
                events, asking = ChunkEvent.FAILED, asking.without_request()
            else:
                asking = replace(
                    asking.without_request(),
                    delays_s=(*asking.delays_s, delay_s)[-DELAY_WINDOW:],
                    rejected=asking.rejected + 1,
                )
                actions = reply.actions
                events = ChunkEvent.REJECTED
                if actions is not None and actions.shape == shape and bool(np.isfinite(actions).all()):
                    chunk, asking = Chunk(actions=actions, requested=reply.tick), replace(asking, rejected=0)
                    events = ChunkEvent.TAKEN
        if asking.waits and not now_s - asking.asked_s <= self.deadline_s:
            events, asking = events | ChunkEvent.GIVEN_UP, asking.without_request()
        return asking, chunk, events, delay_s

    def spliced(self, old: Chunk | None, new: Chunk, tick: int) -> Chunk:
        """Return `new` with a seam from `old` that begins at `tick`.

        On the k-th tick of the seam the plan keeps the share 1 - (k + 1) / (seam_ticks + 1) of what `old` differs from
        `new`, clipped to the bound, so that it leaves the old plan's continuation and ends on the new plan. Where the
        old plan has no further action its last difference counts. Actions of before `tick` stay as received.
        """
        if old is None or old.at(tick) is None:
            return new
        actions = new.actions.copy()
        difference = np.zeros(actions.shape[1], np.float32)
        for k in range(self.seam_ticks):
            place = tick + k - new.requested
            if place >= len(actions):
                break
            continuation = old.at(tick + k)
            if continuation is not None:
                difference = continuation - new.actions[place]
            share = np.float32(1.0 - (k + 1) / (self.seam_ticks + 1))
            kept = np.clip(share * difference, -self.seam_bound, self.seam_bound).astype(np.float32)
            actions[place] = np.where(self.blended, new.actions[place] + kept, new.actions[place])
        actions.setflags(write=False)
        return Chunk(actions=actions, requested=new.requested)

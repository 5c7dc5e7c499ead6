"""Windows of the last ticks: what the residual sees beside the present.

A window holds the features, or the proprioception, of the last ticks as one vector, the oldest first and the present
last. It reaches back over ticks that follow each other without a number missing and on which somebody acted, the
policy or the person. Before the first of them there is nothing to see, and the window is filled up with that first tick
again. So it begins anew with the episode, and after a hold, a reset or a tick that a late loop skipped: what lay before
may be stale or seconds old, and these are just the ticks that the learner keeps (`policy.transitions`), so both put the
same window together, the robot from the tick before and the learner from its rows.

A base policy's own window is no matter of this file: `encode` and `act` take one tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robot.strict import Strict

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MAX_TICKS = 16
Ticks = Annotated[int, Field(ge=1, le=MAX_TICKS)]


class HistoryTicks(Strict):
    """How many ticks the residual, its critics and its gate see, the present one included."""

    features_ticks: Ticks = 1
    proprio_ticks: Ticks = 1

    @property
    def longest(self) -> int:
        """Ticks of the longer window; 1 where the present is all that is seen."""
        return max(self.features_ticks, self.proprio_ticks)

    def ticks(self, name: str) -> int:
        """Return the ticks of "features" or "proprio"."""
        return self.features_ticks if name == "features" else self.proprio_ticks


PRESENT = HistoryTicks()


class HistoryChoice(Strict):
    """What a station says in place of its bundle's `history`; what it leaves out stays the bundle's.

    Attributes:
        features_ticks: of the policy's features, the present one included.
        proprio_ticks: of the proprioception, the present one included.
    """

    features_ticks: Ticks | None = None
    proprio_ticks: Ticks | None = None


class SaysHistory(Protocol):
    """A bundle's manifest, as far as its windows go."""

    @property
    def history(self) -> HistoryTicks | None:
        """Its windows, None for the present tick alone."""
        ...


class ChoosesHistory(Protocol):
    """A station's [residual], as far as its windows go."""

    @property
    def history(self) -> HistoryChoice | None:
        """What takes the place of the bundle's windows, None for nothing."""
        ...


def history_of(manifest: SaysHistory, limits: ChoosesHistory | None) -> HistoryTicks:
    """Return the windows in force: the station's where it says some, else the bundle's, else the present tick."""
    default = manifest.history or PRESENT
    chosen = limits.history if limits is not None else None
    if chosen is None:
        return default
    return HistoryTicks(
        features_ticks=chosen.features_ticks or default.features_ticks,
        proprio_ticks=chosen.proprio_ticks or default.proprio_ticks,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """What is seen at one tick.

    Attributes:
        index: number of the tick.
        features, proprio: of the last ticks, oldest first, (features_ticks * F,) and (proprio_ticks * P,).
    """

    index: int
    features: Floats
    proprio: Floats


def next_window(history: HistoryTicks, before: Window | None, index: int, features: Floats, proprio: Floats) -> Window:
    """Return the window at tick `index`, where `features` (F,) and `proprio` (P,) are seen.

    New arrays each time: the tick before is worked through twice, in a rehearsal and in a replay.

    Args:
        history: lengths of the windows.
        before: window of the last tick on which somebody acted, None where nothing is to be seen of it.
        index: tick number; a window of any other tick than the one before is not gone on with.
        features: of this tick.
        proprio: of this tick.
    """
    if before is not None and before.index != index - 1:
        before = None
    return Window(
        index=index,
        features=_moved_on(None if before is None else before.features, features, history.features_ticks),
        proprio=_moved_on(None if before is None else before.proprio, proprio, history.proprio_ticks),
    )


def _moved_on(before: Floats | None, now: Floats, ticks: int) -> Floats:
    if ticks == 1:
        return now
    if before is None:
        return np.tile(now, ticks)
    return np.concatenate((before[len(now) :], now))


def previous_ticks(acting: NDArray[np.bool_], index: Ints) -> Ints:
    """Return for each tick (T,) the one before it in its window; the tick itself where its window begins.

    Args:
        acting: whether somebody acted, (T,).
        index: tick numbers, (T,).
    """
    previous = np.arange(len(index))
    previous[1:] -= acting[:-1] & (np.diff(index) == 1)
    return previous


def windows(values: Floats, ticks: int, rows: Ints, previous: Ints) -> Floats:
    """Return the windows (N, ticks * D) of `values` (T, D) at `rows` (N,), with `previous` (T,) of `previous_ticks`."""
    parts = [values[rows]]
    for _ in range(ticks - 1):
        rows = previous[rows]
        parts.insert(0, values[rows])
    return np.concatenate(parts, axis=1)

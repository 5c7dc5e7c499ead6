"""How long ticks took and how punctual they were, kept apart from the log, which in lock-step must not depend on it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policy.episode_schema import STAGES

Array = NDArray[np.float64]

# The network's own run time, and in simulation the physics and rendering behind `state`.
NOT_OVERHEAD = ("encode", "act", "state")
_SHARES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}


class TickTimes:
    """Stage times, lateness and ages of every tick of a run, 50 bytes each."""

    def __init__(self) -> None:
        self._values = array("f")  # one row per tick: lateness, age, overrun, then the stages
        self.deadline_misses = 0

    def add(
        self, stages_ms: Mapping[str, float], *, missed: bool, late_s: float = 0.0, age_s: float = math.nan
    ) -> None:
        """Take one tick.

        Args:
            stages_ms: what its stages took [ms].
            missed: it ended after the next one was due.
            late_s: how long after its deadline it began [s].
            age_s: from the oldest frame's capture to the command on its way [s]; NaN without frames.
        """
        self._values.extend((1e3 * late_s, 1e3 * age_s, missed, *(stages_ms.get(stage, 0.0) for stage in STAGES)))
        self.deadline_misses += missed

    def __len__(self) -> int:
        return len(self._values) // (3 + len(STAGES))

    def _table(self, start: int = 0) -> Array:
        columns = 3 + len(STAGES)
        # only what is asked for: an episode's end in a long run is not to cost memory for all of it
        return np.array(self._values[start * columns :], np.float64).reshape(-1, columns)

    def stages_ms(self) -> dict[str, Array]:
        """Stage -> time of each tick, shape (ticks,) [ms]."""
        table = self._table()
        return {stage: table[:, 3 + i] for i, stage in enumerate(STAGES)}

    def overhead_ms(self, start: int = 0) -> Array:
        """Per tick from `start`, all stages but the network's run time, the arm's state and the simulation [ms]."""
        counted = [3 + i for i, stage in enumerate(STAGES) if stage not in NOT_OVERHEAD]
        overhead: Array = self._table(start)[:, counted].sum(axis=1)
        return overhead

    def late_ms(self, start: int = 0) -> Array:
        """Per tick from `start`, how long after its deadline it began [ms]."""
        late: Array = self._table(start)[:, 0]
        return late

    def age_ms(self, start: int = 0) -> Array:
        """Per tick from `start` that had frames, from the oldest frame's capture to the command on its way [ms]."""
        age = self._table(start)[:, 1]
        seen: Array = age[np.isfinite(age)]
        return seen

    def missed(self, start: int = 0) -> Array:
        """Per tick from `start`, 1 where it ended after the next one was due."""
        missed: Array = self._table(start)[:, 2]
        return missed

    def summary(self, start: int = 0) -> dict[str, object]:
        """Count, missed deadlines, and percentiles of overhead, lateness and age of the ticks from `start`."""
        return {
            "count": len(self) - start,
            "overhead_ms": percentiles(self.overhead_ms(start)),
            "late_ms": percentiles(self.late_ms(start)),
            "age_ms": percentiles(self.age_ms(start)),
            "deadline_misses": int(self.missed(start).sum()),
        }


def percentiles(values: Array) -> dict[str, float]:
    """Return p50, p99, p99_9 and max; nothing where there is no value."""
    if not len(values):
        return {}
    return {name: round(float(np.percentile(values, share)), 4) for name, share in _SHARES.items()}

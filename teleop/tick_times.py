"""How long ticks took, kept apart from the log so that lock-step logs do not depend on the machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policy.episode_schema import STAGES

Array = NDArray[np.float64]

# The network's own run time, and in simulation the physics and rendering behind `state`.
NOT_OVERHEAD = ("encode", "act", "state")


class TickTimes:
    """Stage times of every tick of a run."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self.deadline_misses = 0

    def add(self, stages_ms: Mapping[str, float], *, missed: bool) -> None:
        """Take one tick's stages [ms]."""
        self._rows.append(tuple(stages_ms.get(stage, 0.0) for stage in STAGES))
        self.deadline_misses += missed

    def __len__(self) -> int:
        return len(self._rows)

    def stages_ms(self) -> dict[str, Array]:
        """Stage -> time of each tick, shape (ticks,) [ms]."""
        table = np.array(self._rows).reshape(-1, len(STAGES))
        return {stage: table[:, i] for i, stage in enumerate(STAGES)}

    def overhead_ms(self) -> Array:
        """Per tick, all stages but the network's run time, the arm's state and the simulation [ms]."""
        stages = self.stages_ms()
        overhead: Array = np.sum([times for stage, times in stages.items() if stage not in NOT_OVERHEAD], axis=0)
        return overhead

    def summary(self) -> dict[str, object]:
        """Count, percentiles of the overhead and missed deadlines."""
        overhead = self.overhead_ms() if self._rows else np.zeros(1)
        p50, p99 = np.percentile(overhead, [50, 99])
        return {
            "count": len(self._rows),
            "overhead_ms": {"p50": round(float(p50), 4), "p99": round(float(p99), 4)},
            "deadline_misses": self.deadline_misses,
        }

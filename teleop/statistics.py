"""What a run is judged by: success rates, their differences, both with intervals, and how the interventions fell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policy.wilson import wilson95


def quarter_means(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the mean of the first and of the last quarter of a sequence, None when it is empty.

    A quarter is a fourth of the values rounded up, so that one value is both quarters.
    """
    if not values:
        return None
    quarter = math.ceil(len(values) / 4)
    return sum(values[:quarter]) / quarter, sum(values[-quarter:]) / quarter


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much more often one controller succeeds than another, on the same layouts.

    Attributes:
        episodes: layouts that both were measured on.
        gained: layouts on which only the new one succeeded.
        lost: layouts on which only the old one did.
        difference: rate of the new less rate of the old, in [-1, 1]; 0 without layouts.
        low, high: its 95 % interval.
    """

    episodes: int
    gained: int
    lost: int
    difference: float
    low: float
    high: float

    def not_worse(self, margin: float) -> bool:
        """Whether the new one may stay: no lower in what was measured, or surely lower by no more than `margin`."""
        return self.difference >= 0.0 or self.low >= -margin

    def summary(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "episodes": self.episodes,
            "gained": self.gained,
            "lost": self.lost,
            "difference": round(self.difference, 4),
            "interval95": [round(self.low, 4), round(self.high, 4)],
        }


def paired_difference(new: Mapping[int, bool], old: Mapping[int, bool]) -> PairedDifference:
    """Compare two controllers layout by layout; layouts that only one of them has are left out.

    The interval is the score-based one for paired proportions, method 10 of R. G. Newcombe, Statistics in Medicine 17
    (1998) 2635, with his correction of the correlation.

    Args:
        new, old: layout -> whether it succeeded.
    """
    layouts = sorted(new.keys() & old.keys())
    count = len(layouts)
    if count == 0:
        return PairedDifference(episodes=0, gained=0, lost=0, difference=0.0, low=-1.0, high=1.0)
    both = sum(new[layout] and old[layout] for layout in layouts)
    gained = sum(new[layout] and not old[layout] for layout in layouts)
    lost = sum(old[layout] and not new[layout] for layout in layouts)
    neither = count - both - gained - lost
    rate_new, rate_old = (both + gained) / count, (both + lost) / count
    (low_new, high_new), (low_old, high_old) = wilson95(both + gained, count), wilson95(both + lost, count)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    product = float(both * neither - gained * lost)
    if product > count / 2:
        product -= count / 2
    elif product >= 0:
        product = 0.0
    phi = product / math.sqrt(margins) if margins else 0.0
    difference = rate_new - rate_old
    below, above = (rate_new - low_new, high_old - rate_old), (high_new - rate_new, rate_old - low_old)
    return PairedDifference(
        episodes=count,
        gained=gained,
        lost=lost,
        difference=difference,
        low=max(-1.0, difference - _side(*below, phi)),
        high=min(1.0, difference + _side(*above, phi)),
    )


def _side(new: float, old: float, phi: float) -> float:
    return math.sqrt(max(0.0, new * new - 2.0 * phi * new * old + old * old))

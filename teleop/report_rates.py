"""Success rates as a summary gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policy.wilson import wilson95

BASE, TRAINED = "base alone", "base + learned residual"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A measured success rate.

    Attributes:
        name: of the controller, for people.
        successes, episodes: counts.
        low, high: 95 % interval, in [0, 1].
    """

    name: str
    successes: int
    episodes: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Share of successes."""
        return self.successes / self.episodes

    @property
    def words(self) -> str:
        """The rate and what it rests on."""
        return (
            f"{100 * self.rate:.0f} %  ({self.successes} of {self.episodes}; "
            f"{100 * self.low:.0f} to {100 * self.high:.0f} %)"
        )

    @property
    def evidence(self) -> str:
        """What the rate rests on, as a sentence's end."""
        return (
            f"{self.successes} of {self.episodes} held-out layouts, "
            f"{100 * self.low:.0f} to {100 * self.high:.0f} % with 95 % confidence"
        )


def read_rates(summary: Mapping[str, Any]) -> dict[str, Rate]:
    """Return what was measured by the name that people read: base first, what stands beside, trained last."""
    given = {BASE: summary.get("base"), **(summary.get("controllers") or {}), TRAINED: summary.get("trained")}
    found: dict[str, Rate] = {}
    for key, entry in given.items():
        if not entry or not entry.get("episodes") or entry.get("successes") is None:
            continue
        name = key.replace("_", " ")
        successes, episodes = int(entry["successes"]), int(entry["episodes"])
        low, high = entry.get("wilson95") or wilson95(successes, episodes)
        found[name] = Rate(name=name, successes=successes, episodes=episodes, low=low, high=high)
    return found

"""The interval of a rate that was counted."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson95(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % score interval of a success rate, (low, high) in [0, 1].

    It holds near 0 and 1, where the textbook interval shrinks to nothing. Without episodes it is (0, 1).
    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.

    Raises:
        ValueError: not 0 <= successes <= episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes of {episodes} episodes; need 0 <= successes <= episodes")
    if episodes == 0:
        return 0.0, 1.0
    rate, spread = successes / episodes, _Z95**2 / episodes
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4) / (1 + spread)
    # the ends are exact where all or none succeeded; rounding would leave them a hair outside or inside
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == episodes else centre + half
    return low, high

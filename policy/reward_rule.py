"""When a reward model's probabilities become a success: so many ticks in a row over a threshold."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class RewardAnswer(enum.IntEnum):
    """What a reward model said on a tick."""

    NOT_ASKED = 0  # homing, frames that may not be trusted, or a loop that is late as it is
    GIVEN = 1
    UNUSABLE = 2  # not a number in [0, 1]: no reward
    FAILED = 3  # it raised: no reward


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """Success after `debounce_ticks` ticks in a row whose probability is at least `threshold`."""

    threshold: float
    debounce_ticks: int

    def streak(self, before: int, answer: RewardAnswer, probability: float, *, repeated: bool = False) -> int:
        """Return how many ticks in a row there are now; a tick without a usable answer begins anew.

        One with the pictures of the tick before (`repeated`) is no new evidence and adds nothing.
        """
        if answer is not RewardAnswer.GIVEN or not probability >= self.threshold:
            return 0
        return before if repeated else before + 1

    def fired(self, streak: int) -> bool:
        """Return whether that many ticks in a row are a success."""
        return streak >= self.debounce_ticks

    def first_fired(self, probability: NDArray[np.float32], repeated: NDArray[np.bool_] | None = None) -> int | None:
        """Return the place in (T,) probabilities where it fires first; NaN stands for a tick without an answer.

        Args:
            probability: of success.
            repeated: which ticks have the pictures of the tick before, (T,); none when left out.
        """
        streak = 0
        stale = [False] * len(probability) if repeated is None else repeated.tolist()
        for place, value in enumerate(probability.tolist()):
            answer = RewardAnswer.NOT_ASKED if np.isnan(value) else RewardAnswer.GIVEN
            streak = self.streak(streak, answer, value, repeated=stale[place])
            if self.fired(streak):
                return place
        return None


def usable(probability: float) -> bool:
    """Return whether a model's output is a probability; NaN and infinities are none."""
    return 0.0 <= probability <= 1.0

"""How often a reward model that looks on agrees with whoever labelled the episodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import Episode
from policy.reward_rule import RewardRule
from policy.wilson import wilson95


@dataclass(frozen=True, kw_only=True)
class RewardAgreement:
    """Episodes by what the model and what somebody else said.

    Attributes:
        fired_in_successes, successes: of the episodes that another called a success.
        fired_in_failures, failures: of the failures and timeouts.
    """

    fired_in_successes: int
    successes: int
    fired_in_failures: int
    failures: int

    @property
    def agreed(self) -> int:
        """Episodes on which both say the same."""
        return self.fired_in_successes + self.failures - self.fired_in_failures

    @property
    def line(self) -> str:
        """What to tell the person."""
        of = self.successes + self.failures
        low, high = wilson95(self.agreed, of)
        return (
            f"reward model: agrees in {self.agreed} of {of} episodes (95 % interval {100 * low:.0f} to "
            f"{100 * high:.0f} %); fired in {self.fired_in_successes} of {self.successes} successes and in "
            f"{self.fired_in_failures} of {self.failures} failures"
        )


def reward_agreement(episodes: Iterable[Episode], rule: RewardRule) -> RewardAgreement:
    """Count over episodes with a reward model's columns; those that it ended itself or nobody judged are left out."""
    counts = {True: [0, 0], False: [0, 0]}
    for episode in episodes:
        outcome = episode.outcome
        judged = outcome.outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT)
        if not (judged and episode.header.spec.reward_model) or outcome.label_source is LabelSource.REWARD_MODEL:
            continue
        fired = bool(episode.array("tick/reward_streak").max(initial=0) >= rule.debounce_ticks)
        counts[outcome.success][0] += fired
        counts[outcome.success][1] += 1
    (in_successes, successes), (in_failures, failures) = counts[True], counts[False]
    return RewardAgreement(
        fired_in_successes=in_successes, successes=successes, fired_in_failures=in_failures, failures=failures
    )

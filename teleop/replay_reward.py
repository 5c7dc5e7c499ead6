"""A reward model's answers in a log: the same once more, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perception.observation import Observation
from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import Row
from policy.reward_rule import RewardAnswer
from teleop.arbiter import ArbiterState
from teleop.human_input import HumanEvent
from teleop.replay_finding import Finding, differing
from teleop.reward_watch import RewardTick, RewardWatch
from teleop.tick import TickInputs

_STOPS = HumanEvent.STOP | HumanEvent.QUIT
# what a fired model may be overruled by: a person, or whatever ended the run itself
_OVERRULES = (LabelSource.PERSON, LabelSource.OPERATOR_SIMULATED)


class LoggedReward:
    """Follows the reward model through an episode, row by row, and then holds its verdict against the outcome."""

    def __init__(self, watch: RewardWatch) -> None:
        self._watch = watch
        self._streak: int | None = 0  # None: the row before is lost
        self._before: Observation | None = None  # of the row before
        self._fired_at: int | None = None  # the row before fired, and nothing kept the loop from heeding it

    def restart(self) -> None:
        """Rows before the next one are lost."""
        self._streak = self._fired_at = self._before = None

    def findings(self, row: Row, inputs: TickInputs) -> Iterator[Finding]:
        """Yield what the model does not say once more, and a verdict that was not heeded."""
        tick = inputs.index
        if self._fired_at is not None and not inputs.human.events & _STOPS:
            yield Finding(
                tick=self._fired_at,
                field="tick/reward_streak",
                logged=f"{int(row['tick/reward_streak'])}, and ticks after it",
                expected="the episode's end, as the reward model judges it",
            )
        logged = RewardAnswer(int(row["tick/reward_answer"]))
        # where the row before is lost, the one that this tick adds to or ends
        if self._streak is None:
            streak = int(row["tick/reward_streak"])
            # a streak of 0 may be one that its old pictures did not begin
            self._watch.reset(max(0, streak - 1), inputs.observation if streak == 0 else None)
        else:
            self._watch.reset(self._streak, self._before)
        said = self._watch.see(inputs, failed=logged is RewardAnswer.FAILED)
        yield from _compared(row, said, tick)
        self._streak, self._before = int(row["tick/reward_streak"]), inputs.observation
        heeded = self._watch.judges and inputs.reset is None and not _stopped(row)
        self._fired_at = tick if heeded and self._watch.rule.fired(self._streak) else None

    def ending(self, outcome: EpisodeOutcome) -> Iterator[Finding]:
        """Yield where the outcome as recorded contradicts the last row's verdict."""
        by_model = outcome.label_source is LabelSource.REWARD_MODEL
        fired = self._watch.rule.fired(self._streak or 0)
        if by_model and not (fired and self._watch.judges and outcome.outcome is Outcome.SUCCESS):
            yield Finding(
                tick=None,
                field="label_source",
                logged=f"{outcome.outcome.value} by {outcome.label_source.value}",
                expected=f"another source; the last row's streak is {self._streak}, "
                f"{self._watch.rule.debounce_ticks} make a success",
            )
        overruled = outcome.label_source in _OVERRULES or outcome.outcome in (Outcome.ABORT, Outcome.INCOMPLETE)
        if self._fired_at is not None and outcome.complete and not by_model and not overruled:
            yield Finding(
                tick=None,
                field="label_source",
                logged=f"{outcome.outcome.value} by {outcome.label_source.value}",
                expected=f"success by {LabelSource.REWARD_MODEL.value}, by the last row's streak",
            )


def _compared(row: Row, said: RewardTick, tick: int) -> Iterator[Finding]:
    for name, value in (
        ("tick/reward_probability", np.asarray(said.probability, np.float32)),
        ("tick/reward_answer", np.asarray(int(said.answer), np.int8)),
        ("tick/reward_streak", np.asarray(said.streak, np.int32)),
    ):
        found = differing(name, row[name], value, tick=tick, arithmetic=name != "tick/reward_answer")
        if found:
            yield found
    took_ms = float(row["tick/reward_ms"])
    if took_ms < 0.0:
        yield Finding(tick=tick, field="tick/reward_ms", logged=str(took_ms), expected="0 or more")


def _stopped(row: Row) -> bool:
    """Whether the loop went on to bring the arm to rest, whatever the scene."""
    return bool(row["tick/latched"]) or ArbiterState.unpacked(int(row["tick/arbiter"])).stopped

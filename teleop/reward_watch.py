"""The reward model at work: asked once a tick after the command is on its way, debounced, logged, and heard at the end.

What it says on a tick depends on that tick's logged inputs, the streak before it and which pictures the tick before had
alone, so that a replay recomputes it bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from perception.observation import Observation, Verdict
from policy.episode_schema import EpisodeSpec
from policy.manifest import Manifest
from policy.onnx_session import PolicyError
from policy.reward_manifest import RewardManifest
from policy.reward_model import RewardModel, proprio_columns, reward_misfits
from policy.reward_rule import RewardAnswer, RewardRule, usable
from robot.errors import BadInputError
from teleop.station import Station
from teleop.tick import TickInputs

_WARM_UP_RUNS = 20
MAX_SHARE = 0.25  # of a tick, that a reward model may take in real time


@dataclass(frozen=True, kw_only=True)
class RewardTick:
    """What the reward model said on one tick.

    Attributes:
        answer: whether it was asked and gave something that can be used.
        probability: as the graph gave it; NaN where it was not asked or raised.
        streak: ticks in a row over the threshold, this one included; those with the pictures of the tick before do
            not count.
        took_ms: what asking it took; NaN on a virtual clock, since the log must not depend on the machine's speed.
    """

    answer: RewardAnswer
    probability: float
    streak: int
    took_ms: float


class RewardWatch:
    """Follows one episode after another.

    Args:
        model: what is asked.
        spec: of the rows, whose pictures and proprioception it sees.
        rule: when probabilities become a success.
        judges: its success ends the episode; otherwise it is logged beside the labels of others.
        timed: measure what asking takes.
    """

    def __init__(
        self, model: RewardModel, spec: EpisodeSpec, rule: RewardRule, *, judges: bool, timed: bool = False
    ) -> None:
        self.model, self.rule, self.judges = model, rule, judges
        self._columns = proprio_columns(model.manifest, dict(spec.proprio))
        self._timed = timed
        self._cameras = tuple(camera.name for camera in model.manifest.cameras)
        self._streak = 0
        self._shown: tuple[int, ...] | None = None  # frame ids of the tick before
        self._unusable = self._failed = self._told = 0
        self._failure = ""

    def reset(self, streak: int = 0, before: Observation | None = None) -> None:
        """Begin an episode, or go on after a tick whose streak and observation are known."""
        self._streak = streak
        self._shown = None if before is None else self._pictures(before)

    @property
    def fired(self) -> bool:
        """True once the scene counts as a success."""
        return self.rule.fired(self._streak)

    def see(self, inputs: TickInputs, *, failed: bool = False) -> RewardTick:
        """Ask about one tick; `failed` in a replay, that the model raised then."""
        began_s = time.perf_counter()
        answer, probability = RewardAnswer.NOT_ASKED, math.nan
        # homing shows the last episode's scene; untrusted frames show another moment; a late loop has no time for it
        if inputs.reset is None and inputs.observation.verdict is Verdict.FRESH and not inputs.overrun:
            answer, probability = (RewardAnswer.FAILED, math.nan) if failed else self._ask(inputs)
        shown = self._pictures(inputs.observation)
        self._streak = self.rule.streak(self._streak, answer, probability, repeated=shown == self._shown)
        self._shown = shown
        took_ms = 1e3 * (time.perf_counter() - began_s) if self._timed else math.nan
        return RewardTick(answer=answer, probability=probability, streak=self._streak, took_ms=took_ms)

    def _pictures(self, look: Observation) -> tuple[int, ...]:
        return tuple(look.frame_ids[name] for name in self._cameras)

    def _ask(self, inputs: TickInputs) -> tuple[RewardAnswer, float]:
        look = inputs.observation
        try:
            probability = float(self.model.probability(look.images, look.proprio[self._columns]))
        except PolicyError as error:
            self._failed, self._failure = self._failed + 1, str(error)
            return RewardAnswer.FAILED, math.nan
        if usable(probability):
            return RewardAnswer.GIVEN, probability
        self._unusable += 1
        return RewardAnswer.UNUSABLE, probability

    def news(self) -> str:
        """What to tell the person since they were told last; empty when all is well."""
        if self._unusable + self._failed == self._told:
            return ""
        self._told = self._unusable + self._failed
        words = f"reward model: no reward from {self._told} ticks of this run"
        if self._unusable:
            words += f", {self._unusable} times it gave no number from 0 to 1"
        if self._failed:
            words += f", {self._failed} times it raised ({self._failure})"
        return words

    @property
    def unusable(self) -> int:
        """Ticks of the run on which it gave no probability or raised."""
        return self._unusable + self._failed


def misfits_of(station: Station, reward: RewardManifest, policy: Manifest) -> list[str]:
    """One line per reason why a reward model cannot judge what the policy sees; empty when it can."""
    return reward_misfits(
        reward,
        cameras={camera.name: (camera.height, camera.width) for camera in policy.cameras},
        proprio={entry.key: entry.size for entry in policy.proprio},
        rate_hz=station.loop.rate_hz,
        where=f"the policy of station '{station.name}'",
    )


def make_reward_watch(station: Station, model: RewardModel, spec: EpisodeSpec, *, timed: bool = False) -> RewardWatch:
    """Return the watch of a station's reward model; also what a replay rebuilds from a logged one."""
    config, manifest = station.reward, model.manifest
    rule = RewardRule(
        threshold=manifest.threshold if config.threshold is None else config.threshold,
        debounce_ticks=config.debounce_ticks or manifest.debounce_ticks,
    )
    return RewardWatch(model, spec, rule, judges=config.source == "model", timed=timed)


def check_cost(model: RewardModel, period_s: float) -> None:
    """Run the model until it is warm and refuse one that would eat the tick. Raises BadInputError.

    The least of the runs counts: whatever else this machine does just now, the model cannot be faster.
    """
    least_ms, limit_ms = min(model.warm_up(_WARM_UP_RUNS)), 1e3 * MAX_SHARE * period_s
    if least_ms > limit_ms:
        raise BadInputError(
            f"reward model {model.folder}: takes {least_ms:.1f} ms at least (limit {limit_ms:.1f} ms, a quarter of a "
            "tick); train a smaller one or lower loop.rate_hz"
        )


def fill_reward(row: Mapping[str, NDArray[Any]], tick: RewardTick) -> None:
    """Write what the model said into the views of a row."""
    row["tick/reward_answer"][...] = int(tick.answer)
    row["tick/reward_probability"][...] = tick.probability
    row["tick/reward_streak"][...] = tick.streak
    row["tick/reward_ms"][...] = tick.took_ms

"""From log-odds to probabilities that mean what they say, a threshold for a stated false-positive rate, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from policy.reward_frames import NONE, SUCCESS
from policy.reward_manifest import EpisodeFigures, FrameFigures, Rate, RewardCalibration
from policy.reward_rule import RewardRule
from policy.wilson import wilson95

Per = Literal["frame", "episode"]
Floats = NDArray[np.float64]
_BINS = 10
_LEAST, _GREATEST = 0.01, 0.999  # of a threshold: beyond them it is a matter of rounding


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One episode as a reward model saw it.

    Attributes:
        success: how it ended; None where only single frames are known.
        label: what each frame shows (`policy.reward_frames`), (N,).
        probability: of success, (N,).
        repeated: which of them have the pictures of the tick before, (N,); none when left out.
        name: for whoever wants to look at it.
    """

    success: bool | None
    label: NDArray[np.int64]
    probability: Floats
    repeated: NDArray[np.bool_] | None = None
    name: str = field(default="")

    def first_fired(self, rule: RewardRule) -> int | None:
        """Return the place of the frame on which it fires first, None where it never does."""
        return rule.first_fired(self.probability.astype(np.float32), self.repeated)


def fit_log_odds(logit: Floats, label: NDArray[np.int64]) -> tuple[float, float]:
    """Return the slope, at least 0.05, and the offset that make sigmoid(slope * logit + offset) fit labels 0 and 1.

    A network that was trained on as many successes as others takes success for far more frequent than it is. Source: J.
    Platt, Probabilistic outputs for support vector machines (1999), with his softened targets.
    """
    shown, other = int((label == SUCCESS).sum()), int((label == NONE).sum())
    target = np.where(label == SUCCESS, (shown + 1) / (shown + 2), 1 / (other + 2))

    def loss(values: Floats) -> float:
        fitted = np.exp(values[0]) * logit + values[1]
        return float(np.mean(np.logaddexp(0.0, fitted) - target * fitted))

    best = minimize(loss, np.zeros(2), method="Nelder-Mead")
    return float(max(0.05, np.exp(best.x[0]))), float(best.x[1])


def choose_threshold(judged: Sequence[Judged], *, debounce_ticks: int, allowed: float, per: Per) -> float:
    """Return the threshold at which false positives stay within `allowed` and as many successes as then can be fire.

    Where a range of thresholds does equally well, the middle of it, by log-odds. Without one that keeps within
    `allowed`, the greatest.

    Args:
        judged: the calibration split.
        debounce_ticks: ticks in a row, for rates of episodes.
        allowed: share of failures in which it may fire, and of successes in which it may fire too early; or of frames
            without success that may be over the threshold.
        per: which of the two.
    """
    turns = np.concatenate([_turning_points(episode, debounce_ticks) for episode in judged])
    if per == "frame":
        other = np.concatenate([episode.probability[episode.label == NONE] for episode in judged])
        turns = np.r_[turns, np.quantile(other, np.linspace(1.0 - allowed, 1.0, 20)) if len(other) else []]
    turns = np.unique(np.r_[_LEAST, turns.clip(_LEAST, _GREATEST), _GREATEST])
    candidates = (turns[1:] + turns[:-1]) / 2  # between two neighbouring ones nothing changes
    caught = []
    for threshold in candidates.tolist():
        rule = RewardRule(threshold=threshold, debounce_ticks=debounce_ticks)
        if per == "frame":
            within = _share(frame_figures(judged, threshold).false_positives) <= allowed
        else:
            figures = episode_figures(judged, rule)
            within = max(_share(figures.false_positives), _share(figures.early)) <= allowed
        caught.append(episode_figures(judged, rule).recall.count if within else -1)
    if max(caught) < 0:
        return _GREATEST
    best = candidates[np.array(caught) == max(caught)]
    ends = np.log(best[[0, -1]] / (1.0 - best[[0, -1]]))
    return float(1.0 / (1.0 + np.exp(-ends.mean())))


def calibration_report(
    judged: Sequence[Judged], rule: RewardRule, *, allowed: float, per: Per, positive_s: float
) -> RewardCalibration:
    """Return the figures of held-out episodes at a threshold with its debounce."""
    ended = [episode for episode in judged if episode.success is not None]
    return RewardCalibration(
        threshold=rule.threshold,
        debounce_ticks=rule.debounce_ticks,
        allowed=allowed,
        per=per,
        positive_s=positive_s,
        episodes=len(ended),
        successes=sum(bool(episode.success) for episode in ended),
        frame=frame_figures(judged, rule.threshold),
        episode=episode_figures(judged, rule),
    )


def frame_figures(judged: Sequence[Judged], threshold: float) -> FrameFigures:
    """Return the figures of single frames at a threshold, all episodes together."""
    label = np.concatenate([episode.label for episode in judged])
    probability = np.concatenate([episode.probability for episode in judged])[label >= NONE]
    shown = label[label >= NONE] == SUCCESS
    over = probability >= threshold
    return FrameFigures(
        precision=rate(int((over & shown).sum()), int(over.sum())),
        recall=rate(int((over & shown).sum()), int(shown.sum())),
        false_positives=rate(int((over & ~shown).sum()), int((~shown).sum())),
        brier=float(np.mean((probability - shown) ** 2)),
        ece=sum(share * abs(mean - seen) for mean, seen, share in reliability(probability, shown)),
    )


def episode_figures(judged: Sequence[Judged], rule: RewardRule) -> EpisodeFigures:
    """Return the figures of whole episodes with threshold and debounce."""
    right = early = successes = wrong = failures = 0
    for episode in judged:
        if episode.success is None:
            continue
        fired = episode.first_fired(rule)
        if episode.success:
            successes += 1
            right += fired is not None and episode.label[fired] != NONE
            early += fired is not None and episode.label[fired] == NONE
        else:
            failures += 1
            wrong += fired is not None and episode.label[fired] == NONE
    return EpisodeFigures(
        precision=rate(right, right + early + wrong),
        recall=rate(right, successes),
        false_positives=rate(wrong, failures),
        early=rate(early, successes),
    )


def reliability(probability: Floats, shown: NDArray[np.bool_]) -> list[tuple[float, float, float]]:
    """Return per tenth of the probability its mean, the share that shows success, and the share of all frames."""
    place = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    bins = [place == number for number in range(_BINS)]
    return [(float(probability[b].mean()), float(shown[b].mean()), float(b.mean())) for b in bins if b.any()]


def rate(count: int, of: int) -> Rate:
    """Return a counted share with its 95 % interval."""
    low, high = wilson95(count, of)
    return Rate(count=count, of=of, low=low, high=high)


def _turning_points(episode: Judged, debounce_ticks: int) -> Floats:
    """Return the thresholds at which it changes whether the episode fires, before its success and at all."""
    stale = episode.repeated
    new = np.arange(len(episode.probability)) if stale is None else np.flatnonzero(~stale)
    ends = new[debounce_ticks - 1 :]
    if not len(ends):
        return np.zeros(0)
    spans = zip(new.tolist(), ends.tolist(), strict=False)  # each with so many new pictures, and the repeated between
    least = np.array([episode.probability[first : last + 1].min() for first, last in spans])
    other = least[episode.label[ends] == NONE]
    return np.array([least.max(), other.max(initial=0.0)])


def _share(found: Rate) -> float:
    return found.rate or 0.0

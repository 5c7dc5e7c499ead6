"""The calibration report of a reward model as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policy.reward_calibration import Judged, episode_figures, frame_figures, reliability
from policy.reward_frames import NONE, SUCCESS
from policy.reward_manifest import Rate, RewardCalibration
from policy.reward_rule import RewardRule

_SUCCESS, _FAILURE, _INK, _FAINT = "#1b7f5c", "#c4472b", "#2b2f36", "#9aa0aa"
_SHOWN_S = 3.0
_THRESHOLDS = np.linspace(0.02, 0.98, 49)


def draw_calibration(path: Path, judged: Sequence[Judged], calibration: RewardCalibration, rate_hz: float) -> None:
    """Write a PNG: probability towards the end of each held-out episode, reliability, and the threshold's trade."""
    figure = Figure(figsize=(12.5, 4.2), dpi=120, layout="constrained")
    ends, trust, trade = figure.subplots(1, 3)
    _ends(ends, judged, calibration, rate_hz)
    _reliability(trust, judged, calibration)
    _trade(trade, judged, calibration)
    for axes in (ends, trust, trade):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    episode = calibration.episode
    figure.suptitle(
        f"{calibration.episodes} held-out episodes: precision {words(episode.precision)}, recall "
        f"{words(episode.recall)}, fired in {words(episode.false_positives)} of failures, too early in "
        f"{words(episode.early)} of successes",
        fontsize=9,
        color=_INK,
    )
    figure.savefig(path, format="png")


def words(rate: Rate) -> str:
    """Return a counted share with its interval in words."""
    if rate.rate is None:
        return "- (none)"
    return f"{100 * rate.rate:.0f} % ({rate.count}/{rate.of}; {100 * rate.low:.0f} to {100 * rate.high:.0f} %)"


def _ends(axes: Axes, judged: Sequence[Judged], calibration: RewardCalibration, rate_hz: float) -> None:
    for episode in sorted(judged, key=lambda one: bool(one.success)):
        if episode.success is None:
            continue
        kept = min(len(episode.probability), round(_SHOWN_S * rate_hz))
        before_s = (np.arange(kept) - kept + 1) / rate_hz
        colour = _SUCCESS if episode.success else _FAILURE
        axes.plot(before_s, episode.probability[len(episode.probability) - kept :], color=colour, lw=0.9, alpha=0.55)
    axes.axhline(calibration.threshold, color=_INK, lw=1.0, ls=(0, (4, 3)))
    axes.axvspan(-calibration.positive_s, 0.0, color=_SUCCESS, alpha=0.08, lw=0)
    axes.set_xlim(-_SHOWN_S, 0.0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("time before the episode's end [s]", fontsize=8)
    axes.set_title("probability (green: successes, red: failures; line: threshold)", fontsize=8.5, loc="left")


def _reliability(axes: Axes, judged: Sequence[Judged], calibration: RewardCalibration) -> None:
    label = np.concatenate([episode.label for episode in judged])
    probability = np.concatenate([episode.probability for episode in judged])[label >= NONE]
    bins = reliability(probability, label[label >= NONE] == SUCCESS)
    axes.plot([0, 1], [0, 1], color=_FAINT, lw=1.0)
    for mean, seen, share in bins:
        axes.plot(mean, seen, "o", color=_INK, markersize=3.0 + 14.0 * np.sqrt(share), alpha=0.75)
    axes.set_xlabel("probability of a frame", fontsize=8)
    axes.set_ylabel("share that shows success", fontsize=8)
    frame = calibration.frame
    axes.set_title(f"reliability: Brier {frame.brier:.3f}, ECE {frame.ece:.3f}", fontsize=8.5, loc="left")


def _trade(axes: Axes, judged: Sequence[Judged], calibration: RewardCalibration) -> None:
    """Rates of whole episodes against the threshold, with debounce, and the false positives of frames."""
    curves: dict[str, list[float]] = {"recall": [], "precision": [], "fired in failures": [], "frames, false": []}
    for threshold in _THRESHOLDS.tolist():
        found = episode_figures(judged, RewardRule(threshold=threshold, debounce_ticks=calibration.debounce_ticks))
        frames = frame_figures(judged, threshold).false_positives
        for name, rate in zip(curves, (found.recall, found.precision, found.false_positives, frames), strict=True):
            curves[name].append(np.nan if rate.rate is None else rate.rate)
    for (name, values), colour, style in zip(
        curves.items(), (_SUCCESS, _INK, _FAILURE, _FAILURE), ("-", "-", "-", ":"), strict=True
    ):
        axes.plot(_THRESHOLDS, values, style, color=colour, lw=1.3, label=name)
    axes.axvline(calibration.threshold, color=_INK, lw=1.0, ls=(0, (4, 3)))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("threshold", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    axes.set_title(f"episodes, {calibration.debounce_ticks} ticks in a row", fontsize=8.5, loc="left")

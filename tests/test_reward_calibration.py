from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.reward_calibration import (
    Judged,
    calibration_report,
    choose_threshold,
    episode_figures,
    fit_log_odds,
    frame_figures,
    reliability,
)
from policy.reward_frames import NONE, SUCCESS
from policy.reward_rule import RewardRule

LENGTH, SHOWN = 30, 6


def judged(rng: np.random.Generator, *, success: bool, clear: float) -> Judged:
    """An episode whose end is told apart by `clear` in log-odds."""
    logit = rng.normal(-3.0, 1.0, LENGTH)
    logit[-SHOWN:] += clear if success else clear / 3
    label = np.full(LENGTH, NONE)
    if success:
        label[-SHOWN:] = SUCCESS
    return Judged(success=success, label=label, probability=1 / (1 + np.exp(-logit)))


def many(seed: int, clear: float = 6.0, count: int = 40) -> list[Judged]:
    rng = np.random.default_rng(seed)
    return [judged(rng, success=bool(number % 2), clear=clear) for number in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.2]), st.sampled_from([1, 3, 5]), st.floats(1.0, 9.0))
def test_the_threshold_keeps_within_what_is_allowed(seed: int, allowed: float, debounce: int, clear: float) -> None:
    episodes = many(seed, clear)
    for per in ("episode", "frame"):
        threshold = choose_threshold(episodes, debounce_ticks=debounce, allowed=allowed, per=per)  # type: ignore[arg-type]
        figures = episode_figures(episodes, RewardRule(threshold=threshold, debounce_ticks=debounce))
        frames = frame_figures(episodes, threshold)
        if threshold == 0.999:  # none does
            continue
        if per == "episode":
            assert (figures.false_positives.rate or 0.0) <= allowed
            assert (figures.early.rate or 0.0) <= allowed
        else:
            assert (frames.false_positives.rate or 0.0) <= allowed


def test_where_all_is_plain_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    low = Judged(success=False, label=np.full(9, NONE), probability=np.full(9, 0.1))
    high = Judged(success=True, label=np.full(9, SUCCESS), probability=np.full(9, 0.9))
    threshold = choose_threshold([low, high], debounce_ticks=3, allowed=0.0, per="episode")
    assert threshold == pytest.approx(0.5, abs=0.02)


def test_more_allowed_false_positives_catch_no_fewer_successes() -> None:
    episodes = many(5, clear=2.0)
    caught = []
    for allowed in (0.0, 0.05, 0.1, 0.3):
        threshold = choose_threshold(episodes, debounce_ticks=3, allowed=allowed, per="episode")
        caught.append(episode_figures(episodes, RewardRule(threshold=threshold, debounce_ticks=3)).recall.count)
    assert caught == sorted(caught)
    assert caught[-1] > caught[0]


def test_each_episode_counts_once_by_the_first_frame_on_which_it_fires() -> None:
    label = np.array([NONE, NONE, NONE, NONE, SUCCESS, SUCCESS])
    failed = np.full(6, NONE)
    rule = RewardRule(threshold=0.5, debounce_ticks=2)
    episodes = [
        Judged(success=True, label=label, probability=np.array([0, 0, 0, 0, 1, 1.0])),  # right
        Judged(success=True, label=label, probability=np.array([1, 1, 0, 0, 1, 1.0])),  # too early
        Judged(success=True, label=label, probability=np.array([1, 0, 1, 0, 0, 1.0])),  # never two in a row
        Judged(success=False, label=failed, probability=np.array([0, 1, 1, 0, 1, 1.0])),  # fires once
        Judged(success=False, label=failed, probability=np.array([0, 1, 0, 0, 1, 0.0])),
        Judged(success=None, label=label, probability=np.ones(6)),  # nobody knows how it ended
    ]
    found = episode_figures(episodes, rule)
    assert (found.precision.count, found.precision.of) == (1, 3)
    assert (found.recall.count, found.recall.of) == (1, 3)
    assert (found.false_positives.count, found.false_positives.of) == (1, 2)
    assert (found.early.count, found.early.of) == (1, 3)


def test_log_odds_fit_brings_probabilities_to_what_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(-2.0, 2.0, 20_000)
    label = np.where(rng.random(20_000) < 1 / (1 + np.exp(-truth)), SUCCESS, NONE)
    slope, offset = fit_log_odds(2.0 * truth + 3.0, label)  # a network trained on too many successes
    assert (slope, offset) == pytest.approx((0.5, -1.5), abs=0.1)
    before, after = (1 / (1 + np.exp(-logit)) for logit in (2.0 * truth + 3.0, truth))
    errors = [
        frame_figures([Judged(success=None, label=label, probability=probability)], 0.5).ece
        for probability in (before, after)
    ]
    assert errors[1] < 0.02 < errors[0]


def test_a_slope_never_turns_the_answer_round() -> None:
    label = np.array([SUCCESS, NONE] * 50)
    slope, _ = fit_log_odds(np.where(label == SUCCESS, -4.0, 4.0), label)
    assert slope > 0.0


def test_reliability_bins_hold_every_frame_once() -> None:
    probability = np.linspace(0.0, 1.0, 101)
    bins = reliability(probability, probability > 0.5)
    assert len(bins) == 10
    assert sum(share for _, _, share in bins) == pytest.approx(1.0)


def test_the_report_counts_frames_by_hand() -> None:
    label = np.array([NONE, NONE, -1, SUCCESS, SUCCESS])
    one = Judged(success=True, label=label, probability=np.array([0.2, 0.8, 0.9, 0.4, 0.9]))
    rule = RewardRule(threshold=0.5, debounce_ticks=1)
    report = calibration_report([one], rule, allowed=0.05, per="episode", positive_s=0.3)
    frame = report.frame
    assert (frame.precision.count, frame.precision.of) == (1, 2)
    assert (frame.recall.count, frame.recall.of) == (1, 2)
    assert (frame.false_positives.count, frame.false_positives.of) == (1, 2)
    assert frame.brier == pytest.approx((0.04 + 0.64 + 0.36 + 0.01) / 4)
    assert (report.episodes, report.successes) == (1, 1)


def test_old_pictures_neither_fire_nor_move_the_threshold() -> None:
    label = np.full(4, NONE)
    probability, stale = np.array([0.9, 0.8, 0.2, 0.3]), np.array([False, True, False, False])
    rule = RewardRule(threshold=0.5, debounce_ticks=2)
    assert Judged(success=False, label=label, probability=probability).first_fired(rule) == 1
    seen_twice = Judged(success=False, label=label, probability=probability, repeated=stale)
    assert seen_twice.first_fired(rule) is None
    other = Judged(success=True, label=np.full(4, SUCCESS), probability=np.full(4, 0.6))
    chosen = choose_threshold([seen_twice, other], debounce_ticks=2, allowed=0.0, per="episode")
    assert 0.2 < chosen < 0.6
    sure = Judged(success=False, label=label, probability=probability)
    assert choose_threshold([sure, other], debounce_ticks=2, allowed=0.0, per="episode") > 0.8

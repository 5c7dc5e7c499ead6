from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from policy.wilson import wilson95
from teleop.statistics import quarter_means


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_agrees_with_scipy(counts: tuple[int, int]) -> None:
    successes, episodes = counts
    theirs = binomtest(successes, episodes).proportion_ci(method="wilson")
    assert wilson95(successes, episodes) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_rate_and_stays_within_zero_and_one(counts: tuple[int, int]) -> None:
    successes, episodes = counts
    low, high = wilson95(successes, episodes)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0
    assert low < high


def test_without_episodes_nothing_is_known() -> None:
    assert wilson95(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "episodes"), [(3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_refused(successes: int, episodes: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {episodes} episodes"):
        wilson95(successes, episodes)


@pytest.mark.parametrize(
    ("values", "means"),
    [
        ([4, 2, 1, 1, 1, 1, 0, 0], (3.0, 0.0)),
        ([4, 2, 1, 1, 1, 1, 1, 0, 0], (7 / 3, 1 / 3)),  # nine: a quarter is three
        ([2], (2.0, 2.0)),
        ([2, 1], (2.0, 1.0)),
    ],
)
def test_quarters_are_a_fourth_rounded_up(values: list[float], means: tuple[float, float]) -> None:
    assert quarter_means(values) == pytest.approx(means)


def test_no_episodes_have_no_quarters() -> None:
    assert quarter_means([]) is None

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policy.reward_rule import RewardAnswer, RewardRule, usable

RULE = RewardRule(threshold=0.5, debounce_ticks=3)
PROBABILITIES = st.lists(st.one_of(st.floats(0.0, 1.0, width=32), st.just(float("nan"))), max_size=40)


@given(PROBABILITIES, st.integers(1, 6))
def test_it_fires_first_where_so_many_in_a_row_reach_the_threshold(values: list[float], ticks: int) -> None:
    over = [value >= 0.5 for value in values]
    first = next((end for end in range(ticks - 1, len(over)) if all(over[end - ticks + 1 : end + 1])), None)
    rule = RewardRule(threshold=0.5, debounce_ticks=ticks)
    assert rule.first_fired(np.array(values, np.float32)) == first


def test_a_tick_without_a_usable_answer_begins_anew() -> None:
    assert RULE.streak(2, RewardAnswer.GIVEN, 0.5) == 3
    assert RULE.fired(3)
    for answer in (RewardAnswer.NOT_ASKED, RewardAnswer.UNUSABLE, RewardAnswer.FAILED):
        assert RULE.streak(2, answer, 0.9) == 0
    assert RULE.streak(7, RewardAnswer.GIVEN, 0.49) == 0


def test_pictures_that_are_seen_again_are_no_new_evidence() -> None:
    assert RULE.streak(2, RewardAnswer.GIVEN, 0.9, repeated=True) == 2
    assert RULE.streak(2, RewardAnswer.GIVEN, 0.4, repeated=True) == 0
    assert RULE.streak(2, RewardAnswer.FAILED, 0.9, repeated=True) == 0
    over, again = np.full(6, 0.9, np.float32), np.array([False, True, True, False, True, False])
    assert RULE.first_fired(over) == 2
    assert RULE.first_fired(over, again) == 5
    over[4] = 0.1
    assert RULE.first_fired(over, again) is None


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_only_numbers_from_zero_to_one_are_probabilities(value: float) -> None:
    assert usable(value) == (np.isfinite(value) and 0.0 <= value <= 1.0)

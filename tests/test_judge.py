from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policy.episode_header import Outcome
from robot.arm_state import ArmState
from teleop.judge import LastingJudge

SAID = st.lists(st.sampled_from([None, Outcome.SUCCESS, Outcome.FAILURE]), max_size=30)
STATE = ArmState(
    measured_s=0.0,
    q_rad=np.zeros(7),
    dq_rad_s=np.zeros(7),
    T_base_tcp=np.eye(4),
    tcp_velocity=np.zeros(6),
    gripper_width_m=0.0,
)


class Says:
    def __init__(self, said: list[Outcome | None]) -> None:
        self.said, self.resets = list(said), 0

    def reset(self) -> None:
        self.resets += 1

    def outcome(self, state: ArmState) -> Outcome | None:
        return self.said.pop(0)


@given(SAID, st.integers(0, 6))
def test_a_word_counts_once_it_was_the_same_for_so_many_ticks_before(said: list[Outcome | None], ticks: int) -> None:
    judge = LastingJudge(Says(said), ticks)
    heard = [judge.outcome(STATE) for _ in said]
    for tick, word in enumerate(said):
        lasted = tick >= ticks and set(said[tick - ticks : tick + 1]) == {word}
        assert heard[tick] == (word if lasted else None)


def test_a_reset_forgets_how_long_it_lasted() -> None:
    says = Says([Outcome.SUCCESS] * 5)
    judge = LastingJudge(says, 2)
    assert [judge.outcome(STATE) for _ in range(2)] == [None, None]
    judge.reset()
    assert says.resets == 1
    assert [judge.outcome(STATE) for _ in range(3)] == [None, None, Outcome.SUCCESS]

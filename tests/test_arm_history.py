import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from perception.arm_history import ArmHistory, Around, KeepsHistory
from robot.arm_state import ArmState
from robot.geometry import rotation_angle, rotvec_to_matrix
from tests.filter_bench import arm_state

small = st.floats(-1.5, 1.5)
vectors = st.tuples(small, small, small)


def state(measured_s: float, value: float = 0.0, **more: object) -> ArmState:
    return dataclasses.replace(arm_state(), measured_s=measured_s, gripper_width_m=value, **more)  # type: ignore[arg-type]


def posed(measured_s: float, position: tuple[float, ...], rotvec: tuple[float, ...], rng_seed: int) -> ArmState:
    rng = np.random.default_rng(rng_seed)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotvec_to_matrix(np.array(rotvec)), position
    return state(
        measured_s, rng.uniform(0.0, 0.08), T_base_tcp=T, q_rad=rng.normal(size=7), dq_rad_s=rng.normal(size=7),
        tcp_velocity=rng.normal(size=6),
    )  # fmt: skip


def test_the_states_next_to_a_moment_are_found() -> None:
    history = ArmHistory(span_s=5.0)
    for tick in range(10):
        history.add(state(1.0 + 0.1 * tick, float(tick)))
    around = history.around(1.57)
    assert (around.before.measured_s, around.after.measured_s) == pytest.approx((1.5, 1.6))
    assert around.at(1.57).gripper_width_m == pytest.approx(5.7)


def test_a_moment_of_a_measurement_is_that_measurement() -> None:
    history = ArmHistory(span_s=5.0)
    states = [state(1.0 + 0.1 * tick, float(tick)) for tick in range(5)]
    for each in states:
        history.add(each)
    for each in states:
        around = history.around(each.measured_s)
        assert around.before is around.after is each
        assert around.at(each.measured_s) is each


def test_nothing_is_extrapolated_to_either_side() -> None:
    history = ArmHistory(span_s=5.0)
    first, last = state(1.0, 0.1), state(1.1, 0.2)
    history.add(first)
    history.add(last)
    assert history.around(0.5) == Around(before=first, after=first)
    assert history.around(0.5).at(0.5) is first
    assert history.around(3.0) == Around(before=last, after=last)
    assert history.around(3.0).at(3.0) is last
    assert history.around(3.0).clamped_s(3.0) == 1.1


def test_a_state_that_is_not_newer_is_not_taken() -> None:
    history = ArmHistory(span_s=5.0)
    for measured_s, value in ((1.0, 1.0), (1.1, 2.0), (1.1, 3.0), (0.9, 4.0), (float("nan"), 5.0)):
        history.add(state(measured_s, value))
    assert [history.around(time_s).at(time_s).gripper_width_m for time_s in (1.0, 1.1)] == [1.0, 2.0]
    assert history.around(2.0).at(2.0).gripper_width_m == 2.0


def test_what_is_older_than_the_span_is_forgotten_but_for_one_state() -> None:
    history = ArmHistory(span_s=0.2)
    for tick in range(100):
        history.add(state(1.0 + 0.05 * tick, float(tick)))
    assert history.around(0.0).before.gripper_width_m == 95.0  # a full span before the newest, at 99
    assert history.around(5.77).at(5.77).gripper_width_m == pytest.approx(95.4)


def test_an_empty_history_says_so() -> None:
    with pytest.raises(LookupError, match="no state yet"):
        ArmHistory(span_s=1.0).around(1.0)


@given(vectors, vectors, vectors, vectors, st.floats(0.0, 1.0))
def test_interpolation_is_linear_and_slerp(
    p_a: tuple[float, ...], r_a: tuple[float, ...], p_b: tuple[float, ...], r_b: tuple[float, ...], share: float
) -> None:
    before, after = posed(10.0, p_a, r_a, 1), posed(10.5, p_b, r_b, 2)
    time_s = 10.0 + 0.5 * share
    found = Around(before=before, after=after).at(time_s)
    assert found.measured_s == time_s
    share = (time_s - 10.0) / 0.5
    for name in ("q_rad", "dq_rad_s", "tcp_velocity", "gripper_width_m"):
        a, b = getattr(before, name), getattr(after, name)
        np.testing.assert_allclose(getattr(found, name), (1.0 - share) * a + share * b, atol=1e-12)
    np.testing.assert_allclose(
        found.T_base_tcp[:3, 3], (1.0 - share) * np.array(p_a) + share * np.array(p_b), atol=1e-12
    )
    R_a, R_b, R = before.T_base_tcp[:3, :3], after.T_base_tcp[:3, :3], found.T_base_tcp[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    angle = rotation_angle(R_b, R_a)
    assert rotation_angle(R, R_a) == pytest.approx(share * angle, abs=1e-6)
    if angle < 3.1:  # a half turn has two ways
        expected = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([R_a, R_b])))(share).as_matrix()
        np.testing.assert_allclose(R, expected, atol=1e-6)


def test_a_fault_is_not_halved() -> None:
    found = Around(before=state(1.0), after=state(2.0, fault="reflex", force_n=9.0)).at(1.2)
    assert (found.fault, found.force_n) == ("reflex", 9.0)


def test_arms_that_keep_a_history_are_told_by_their_method() -> None:
    class Measured:
        def history(self) -> list[ArmState]:
            return []

    assert isinstance(Measured(), KeepsHistory)
    assert not isinstance(object(), KeepsHistory)

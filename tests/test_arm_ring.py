"""A state that goes through shared memory comes out with the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.arm_ring import ArmRecord
from tests.filter_bench import HOME_Q, T_HOME, arm_state

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(ANY, min_size=14, max_size=14),
    st.one_of(st.none(), ANY),
    st.one_of(st.none(), st.text(max_size=40)),
    st.floats(0.0, 1e9),
)
def test_every_state_comes_out_as_it_went_in(
    joints: list[float], force_n: float | None, fault: str | None, measured_s: float
) -> None:
    state = arm_state(
        q_rad=np.array(joints[:7]), dq_rad_s=np.array(joints[7:]), force_n=force_n, fault=fault, measured_s=measured_s
    )
    layout = ArmRecord(7)
    record = layout.pack(state)
    assert len(record) == layout.size
    back = layout.unpack(b"head" + record, 4)
    for field in dataclasses.fields(state):
        before, after = getattr(state, field.name), getattr(back, field.name)
        np.testing.assert_array_equal(after, before)
        assert type(after) is type(before)
    assert layout.pack(back) == record


def test_arrays_that_come_out_are_read_only_and_of_their_shapes() -> None:
    layout = ArmRecord(7)
    state = layout.unpack(layout.pack(arm_state(T_HOME, HOME_Q)))
    for array, shape in (
        (state.q_rad, (7,)),
        (state.dq_rad_s, (7,)),
        (state.T_base_tcp, (4, 4)),
        (state.tcp_velocity, (6,)),
    ):
        assert array.shape == shape
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_a_long_fault_is_cut_and_an_arm_without_joints_has_none() -> None:
    layout = ArmRecord(0)
    state = layout.unpack(layout.pack(arm_state(q_rad=np.zeros(0), fault="contact " * 100)))
    assert state.fault is not None
    assert len(state.fault) == 200
    assert state.q_rad.shape == (0,)

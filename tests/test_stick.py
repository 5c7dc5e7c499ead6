from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleop.stick import shaped, twist_base

travel = st.floats(-1.0, 1.0)
dead_zones = st.floats(0.0, 0.5)
exponents = st.floats(1.0, 4.0)


@given(x=travel, y=travel, dead_zone=dead_zones, exponent=exponents)
def test_shaped_keeps_direction_and_stays_in_the_unit_disc(
    x: float, y: float, dead_zone: float, exponent: float
) -> None:
    out_x, out_y = shaped(x, y, dead_zone=dead_zone, exponent=exponent)
    assert math.hypot(out_x, out_y) <= 1.0 + 1e-12
    assert out_x * y == pytest.approx(out_y * x, abs=1e-12)
    assert out_x * x >= 0.0
    assert out_y * y >= 0.0


@given(angle_rad=st.floats(-math.pi, math.pi), share=st.floats(0.0, 1.0), dead_zone=dead_zones, exponent=exponents)
def test_a_stick_in_the_dead_zone_rests(angle_rad: float, share: float, dead_zone: float, exponent: float) -> None:
    radius = share * dead_zone * (1.0 - 1e-9)
    x, y = radius * math.cos(angle_rad), radius * math.sin(angle_rad)
    assert shaped(x, y, dead_zone=dead_zone, exponent=exponent) == (0.0, 0.0)


@pytest.mark.parametrize("exponent", [1.0, 1.8, 4.0])
@pytest.mark.parametrize("dead_zone", [0.0, 0.12, 0.5])
def test_motion_starts_without_a_jump_and_ends_at_full_speed(dead_zone: float, exponent: float) -> None:
    edge = dead_zone + 1e-6
    assert abs(shaped(edge, 0.0, dead_zone=dead_zone, exponent=exponent)[0]) < 1e-5
    assert shaped(0.0, -1.0, dead_zone=dead_zone, exponent=exponent)[1] == pytest.approx(-1.0)


def test_a_greater_exponent_is_finer_near_the_centre() -> None:
    gentle, linear = (shaped(0.4, 0.0, dead_zone=0.1, exponent=exponent)[0] for exponent in (2.0, 1.0))
    assert gentle == pytest.approx(linear**2)
    assert linear == pytest.approx(0.3 / 0.9)


@given(forward=travel, left=travel, up=travel, turn=travel, yaw=st.floats(-4.0, 4.0), share=st.floats(0.01, 1.0))
def test_twist_never_exceeds_the_speed_share(
    forward: float, left: float, up: float, turn: float, yaw: float, share: float
) -> None:
    twist = twist_base(forward=forward, left=left, up=up, turn=turn, view_yaw_rad=yaw, speed_share=share)
    assert np.all(np.abs(twist) <= share + 1e-12)
    assert np.linalg.norm(twist[:2]) <= share + 1e-12
    assert not twist[3:5].any()


@pytest.mark.parametrize(
    ("view_yaw_rad", "forward_is"), [(0.0, (1, 0)), (math.pi / 2, (0, 1)), (math.pi, (-1, 0)), (-math.pi / 2, (0, -1))]
)
def test_forward_goes_where_the_person_looks(view_yaw_rad: float, forward_is: tuple[int, int]) -> None:
    forward = twist_base(forward=1, left=0, up=0, turn=0, view_yaw_rad=view_yaw_rad, speed_share=1)
    left = twist_base(forward=0, left=1, up=0, turn=0, view_yaw_rad=view_yaw_rad, speed_share=1)
    np.testing.assert_allclose(forward[:2], forward_is, atol=1e-12)
    np.testing.assert_allclose(left[:2], (-forward_is[1], forward_is[0]), atol=1e-12)

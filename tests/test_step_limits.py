import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robot.command import Reason
from robot.geometry import rotvec_to_matrix
from robot.step_limits import StepLimits
from robot.stopping import Vector
from tests.filter_bench import LIMITS, PERIOD_S, T_HOME

STEPS = StepLimits(LIMITS, PERIOD_S, T_HOME[:3, 2])
VECTORS = st.tuples(*[st.floats(-1.0, 1.0)] * 3)
STILL: Vector = (0.0, 0.0, 0.0)


def tilted(axis_rad: Vector) -> np.ndarray:
    return rotvec_to_matrix(np.array(axis_rad)) @ T_HOME[:3, :3]


@given(VECTORS, VECTORS)
def test_position_is_inside_the_box_to_the_last_bit_whatever_is_added(p: Vector, moved: Vector) -> None:
    after = STEPS.inside(p, moved)
    for x, start, low, high in zip(after, p, LIMITS.workspace_min_m, LIMITS.workspace_max_m, strict=True):
        assert min(low, start) <= x <= max(high, start)


def test_tilt_is_limited_on_the_way_and_not_only_at_its_end() -> None:
    # the tool leans by nearly the limit; a turn about the base's vertical, tipped a little, swings it first inwards,
    # then out over the limit and back in again
    limits = LIMITS.model_copy(
        update={"max_rotation_speed_rad_s": 2.0 * math.pi / PERIOD_S, "max_angular_acceleration_rad_s2": 1e5}
    )
    steps = StepLimits(limits, PERIOD_S, T_HOME[:3, 2])
    R = tilted((0.45, 0.0, 0.0))
    axis = rotvec_to_matrix(np.array([0.0, -0.1, 0.0])) @ np.array([0.0, 0.0, 1.0])
    z, z_home = R[:, 2], T_HOME[:3, 2]
    swung = [
        math.acos(float(z_home @ rotvec_to_matrix(angle * axis) @ z)) for angle in np.linspace(0.0, 1.95 * math.pi, 50)
    ]
    assert swung[-1] < LIMITS.max_tilt_rad < max(swung)
    x, y, z_turn = (1.95 * math.pi * axis).tolist()
    step, reasons = steps.rotation(R, STILL, (x, y, z_turn), None)
    assert reasons == Reason.TILT
    for share in np.linspace(0.0, 1.0, 50):
        tilt = math.acos(float(z_home @ rotvec_to_matrix(share * np.array(step)) @ z))
        assert tilt <= LIMITS.max_tilt_rad + 2e-6


@given(VECTORS, VECTORS)
def test_a_tool_tilted_too_far_never_tilts_further(lean: Vector, wanted: Vector) -> None:
    R, z_home = tilted((lean[0], lean[1], 0.0)), T_HOME[:3, 2]
    step, _ = STEPS.rotation(R, STILL, wanted, None)
    before = float(z_home @ R[:, 2])
    after = float(z_home @ (rotvec_to_matrix(np.array(step)) @ R)[:, 2])
    assert after >= min(before, math.cos(LIMITS.max_tilt_rad)) - 1e-11


def test_a_tool_tilted_too_far_may_come_back() -> None:
    R, back = tilted((0.8, 0.0, 0.0)), (-0.01, 0.0, 0.0)
    assert STEPS.rotation(R, STILL, back, None) == (back, Reason.NONE)
    assert STEPS.rotation(R, STILL, (0.01, 0.0, 0.0), None)[1] == Reason.TILT

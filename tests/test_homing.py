import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.action_space import ActionSpace
from policy.manifest import ActionSpec
from robot.arm_state import ArmState
from robot.command import Reason
from robot.config import SimulatedArmConfig
from robot.geometry import pose, rotvec_to_matrix
from robot.safety_limits import SafetyLimits
from teleop.homing import Homing
from teleop.rig import R_DOWN
from teleop.station import load_station
from tests.filter_bench import KINEMATICS, LIMITS, T_HOME, Bench, arm_state
from tests.tiny_bundle import tiny_manifest

STATION = Path(__file__).parents[1] / "launch" / "stations" / "sim_place.toml"
ACTIONS = ActionSpace(ActionSpec.model_validate(tiny_manifest()["action"]))
T_BASE_HOME = pose(T_HOME[:3, :3], np.array([0.4, 0.0, 0.3]))
HOMING = Homing(ACTIONS, T_BASE_HOME, gripper_open_m=0.08)


def standing(x: float, y: float, z: float, yaw: float, width_m: float) -> ArmState:
    T = pose(rotvec_to_matrix(np.array([0.0, 0.0, yaw])) @ T_HOME[:3, :3], np.array([x, y, z]))
    q_rad = KINEMATICS.solve(T, arm_state().q_rad)
    assert q_rad is not None
    return arm_state(T=T, q_rad=q_rad, gripper_width_m=width_m)


def way_home(
    start: ArmState, *, homing: Homing = HOMING, limits: SafetyLimits = LIMITS, ticks: int = 400
) -> list[ArmState]:
    """States on the way, through the filter that checks each step; the gripper takes a few ticks to open."""
    bench = Bench(limits=limits, at=start)
    states = [start]
    while not homing.done(bench.arm) and len(states) < ticks:
        action = homing.action(bench.arm, bench.state)
        assert np.all(np.abs(action) <= 1.0)
        assert action[-1] == 1.0
        wanted = ACTIONS.command(
            action, T_base_target=bench.state.T_base_tcp, gripper_width_m=bench.state.gripper_width_m, due_s=0.0
        )
        reasons = bench.step(wanted)
        assert not reasons & (Reason.NOT_FINITE | Reason.NO_SOLUTION | Reason.FAULTED)
        width_m = min(bench.arm.gripper_width_m + 0.02, bench.state.gripper_width_m)
        bench.arm = dataclasses.replace(bench.arm, gripper_width_m=width_m)
        states.append(bench.arm)
    return states


@settings(max_examples=8, deadline=None)
@given(st.floats(0.35, 0.55), st.floats(-0.2, 0.2), st.floats(0.06, 0.4), st.floats(-0.3, 0.3), st.floats(0.0, 0.08))
def test_home_is_reached_from_wherever_an_episode_ended(x: float, y: float, z: float, yaw: float, width: float) -> None:
    states = way_home(standing(x, y, z, yaw, width))
    assert HOMING.done(states[-1])
    np.testing.assert_allclose(states[-1].T_base_tcp[:3, 3], T_BASE_HOME[:3, 3], atol=4e-3)
    assert len(states) < 200


def test_home_is_reached_from_every_corner_of_the_simulated_stations_workspace() -> None:
    # its filter must not refuse a step on the way: three refusals latch, and the next episode begins with homing again
    station = load_station(STATION).station
    assert isinstance(station.arm, SimulatedArmConfig)
    limits = station.safety
    homing = Homing(ACTIONS, pose(R_DOWN, np.array(station.arm.home_m)), gripper_open_m=0.08)
    axes = zip(limits.workspace_min_m, limits.workspace_max_m, strict=True)
    x, y, z = (np.linspace(least, greatest, 3) for least, greatest in axes)
    reached = 0
    for corner in itertools.product(x, [*y, 0.1], z[:2]):
        T = pose(R_DOWN, np.array(corner))
        q_rad = KINEMATICS.solve(T, arm_state().q_rad)
        if q_rad is not None:
            states = way_home(arm_state(T=T, q_rad=q_rad, gripper_width_m=0.08), homing=homing, limits=limits)
            assert homing.done(states[-1]), corner
            reached += 1
    assert reached >= 20


def test_it_lets_go_before_it_leaves_and_rises_before_it_moves_sideways() -> None:
    states = way_home(standing(0.5, 0.15, 0.1, 0.0, 0.02))
    path = np.array([state.T_base_tcp[:3, 3] for state in states])
    opened = next(i for i, state in enumerate(states) if state.gripper_width_m > 0.07)
    assert opened >= 3
    np.testing.assert_allclose(path[: opened + 1], np.broadcast_to(path[0], (opened + 1, 3)), atol=1e-6)
    low = path[:, 2] < T_BASE_HOME[2, 3] - 0.07
    np.testing.assert_allclose(path[low, :2], np.broadcast_to(path[0, :2], (low.sum(), 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("state", "there"),
    [
        (standing(0.4, 0.0, 0.3, 0.0, 0.08), True),
        (standing(0.406, 0.0, 0.3, 0.0, 0.08), False),
        (standing(0.4, 0.0, 0.3, 0.05, 0.08), False),
        (standing(0.4, 0.0, 0.3, 0.0, 0.05), False),
    ],
    ids=["home", "6 mm off", "turned", "closed"],
)
def test_done_means_at_home_and_open(state: ArmState, there: bool) -> None:
    assert HOMING.done(state) is there


def test_what_an_arm_still_lacks_is_said_in_words() -> None:
    assert HOMING.remaining(standing(0.4, 0.03, 0.3, 0.05, 0.02)) == (
        "30 mm and 3 degrees from home, gripper open 20 mm only"
    )
    assert HOMING.remaining(standing(0.42, 0.0, 0.3, 0.0, 0.08)) == "20 mm and 0 degrees from home"


def test_a_hand_that_never_opens_far_is_open_at_its_own_width() -> None:
    narrow = Homing(ACTIONS, T_BASE_HOME, gripper_open_m=0.04)
    assert narrow.done(standing(0.4, 0.0, 0.3, 0.0, 0.038))
    assert not narrow.done(standing(0.4, 0.0, 0.3, 0.0, 0.03))


def test_a_hand_that_begins_closed_comes_home_closed_on_whatever_it_holds() -> None:
    homing = Homing(ACTIONS, T_BASE_HOME, gripper_open_m=0.08, closed=True)
    for width_m in (0.0, 0.024):
        bench = Bench(at=standing(0.5, 0.1, 0.1, 0.0, width_m))
        for _ in range(200):
            action = homing.action(bench.arm, bench.state)
            assert action[-1] == -1.0
            bench.step(
                ACTIONS.command(action, T_base_target=bench.state.T_base_tcp, gripper_width_m=width_m, due_s=0.0)
            )
            if homing.done(bench.arm):
                break
        assert homing.done(bench.arm)
        assert "gripper" not in homing.remaining(bench.arm)

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import robot.simulation.world
from robot import fr3
from robot.fr3 import FR3Kinematics
from robot.simulation.place_layout import PlaceLayout
from robot.simulation.place_scene import BLOCK_HALF_M
from robot.simulation.world import TIMESTEP_S, SimulatedWorld

LAYOUT = PlaceLayout(block_xy_m=(0.42, -0.1), block_yaw_rad=0.1, pad_xy_m=(0.5, 0.12))
PACKAGES = Path(__file__).parents[1]


@pytest.fixture
def world() -> SimulatedWorld:
    world = SimulatedWorld(start_s=100.0)
    world.lay(LAYOUT.arrangement)
    return world


def writers_of_joint_positions(source: str) -> set[str]:
    """Names of the functions that write to `.qpos`."""
    found = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else []
                targets = [node.target] if isinstance(node, ast.AugAssign) else targets
                if any("qpos" in ast.dump(target) for target in targets):
                    found.add(function.name)
    return found


def test_joint_positions_are_written_at_construction_only() -> None:
    # `lay` writes the block's, see the next test
    assert writers_of_joint_positions(inspect.getsource(robot.simulation.world)) == {"__init__", "lay"}
    for package in ("robot", "perception", "policy", "teleop", "launch"):
        for path in (PACKAGES / package).rglob("*.py"):
            if path.name != "world.py":
                assert not writers_of_joint_positions(path.read_text()), path


def test_laying_the_table_does_not_touch_the_arm(world: SimulatedWorld) -> None:
    q_rad = world.arm_state().q_rad + 0.1
    world.set_target(q_rad, 0.05, 100.5)
    world.advance(100.3)
    before = world.arm_state()
    world.lay(PlaceLayout(block_xy_m=(0.5, -0.05), block_yaw_rad=-0.1, pad_xy_m=(0.4, 0.05)).arrangement)
    after = world.arm_state()
    np.testing.assert_array_equal(after.q_rad, before.q_rad)
    np.testing.assert_array_equal(after.dq_rad_s, before.dq_rad_s)
    assert after.gripper_width_m == before.gripper_width_m
    np.testing.assert_allclose(world.object_position_m(), [0.5, -0.05, BLOCK_HALF_M], atol=1e-12)
    np.testing.assert_array_equal(world.target_xy_m(), [0.4, 0.05])
    assert world.object_speed_m_s() == 0.0
    assert world.object_axis()[2] == pytest.approx(1.0)


def test_arm_keeps_its_place_without_a_target(world: SimulatedWorld) -> None:
    before = world.arm_state()
    world.advance(103.0)
    after = world.arm_state()
    np.testing.assert_allclose(after.q_rad, before.q_rad, atol=1e-3)
    np.testing.assert_allclose(world.object_position_m()[:2], LAYOUT.block_xy_m, atol=1e-3)


def test_a_target_is_reached_by_motion_and_not_at_once(world: SimulatedWorld) -> None:
    start = world.arm_state().q_rad
    goal = start + np.array([0.1, 0.05, -0.05, 0.1, 0.0, 0.05, -0.1])
    world.set_target(goal, 0.03, 100.5)
    world.advance(100.0 + TIMESTEP_S)
    assert np.abs(world.arm_state().q_rad - start).max() < 0.01
    world.advance(100.25)
    halfway = (world.arm_state().q_rad - start) / (goal - start + 1e-12)
    assert 0.2 < halfway[0] < 0.6
    world.advance(101.5)
    np.testing.assert_allclose(world.arm_state().q_rad, goal, atol=5e-3)
    assert world.arm_state().gripper_width_m == pytest.approx(0.03, abs=2e-3)


def test_tcp_pose_and_velocity_agree_with_the_kinematics(world: SimulatedWorld) -> None:
    world.set_target(world.arm_state().q_rad + 0.15, 0.08, 100.4)
    world.advance(100.2)
    first = world.arm_state()
    np.testing.assert_allclose(first.T_base_tcp, FR3Kinematics().forward(first.q_rad), atol=1e-6)
    world.advance(100.2 + TIMESTEP_S)
    second = world.arm_state()
    moved = (second.T_base_tcp[:3, 3] - first.T_base_tcp[:3, 3]) / TIMESTEP_S
    np.testing.assert_allclose(0.5 * (first.tcp_velocity + second.tcp_velocity)[:3], moved, atol=0.02)
    assert np.linalg.norm(moved) > 0.1
    assert second.dq_rad_s.max() > 0.1


def test_world_starts_at_the_arms_home(world: SimulatedWorld) -> None:
    np.testing.assert_array_equal(world.arm_state().q_rad, fr3.HOME_Q_RAD)
    assert world.time_s == 100.0


def test_world_never_goes_back(world: SimulatedWorld) -> None:
    world.advance(100.5)
    world.advance(100.1)
    assert world.time_s == pytest.approx(100.5)


def test_same_calls_give_the_same_bits() -> None:
    def run() -> bytes:
        world = SimulatedWorld(start_s=0.0)
        world.lay(LAYOUT.arrangement)
        rng = np.random.default_rng(0)
        for tick in range(20):
            world.set_target(np.array(fr3.HOME_Q_RAD) + rng.normal(0.0, 0.05, 7), 0.02, 0.05 * (tick + 1))
            world.advance(0.05 * (tick + 1))
        state = world.arm_state()
        return state.q_rad.tobytes() + state.tcp_velocity.tobytes() + world.object_position_m().tobytes()

    assert run() == run()


def test_pressing_on_the_table_is_felt_as_a_force(world: SimulatedWorld) -> None:
    assert world.arm_state().force_n == 0.0
    kinematics = FR3Kinematics()
    state = world.arm_state()
    goal = state.T_base_tcp.copy()
    q_rad = state.q_rad
    for height_m in np.linspace(goal[2, 3], -0.02, 40):
        goal[2, 3] = height_m
        solution = kinematics.solve(goal, q_rad)
        assert solution is not None
        q_rad = solution
    world.set_target(q_rad, 0.08, 102.0)
    world.advance(103.0)
    force_n = world.arm_state().force_n
    assert force_n is not None
    assert force_n > 10.0


def test_cameras_are_stopped_for_in_the_order_of_their_times(world: SimulatedWorld) -> None:
    taken: list[tuple[str, float]] = []

    class Camera:
        def __init__(self, name: str, period_s: float) -> None:
            self.name, self.period_s, self.count = name, period_s, 1

        def next_capture_s(self) -> float:
            return 100.0 + self.count * self.period_s

        def capture(self) -> None:
            taken.append((self.name, world.time_s))
            self.count += 1

    fast, slow = Camera("fast", 0.02), Camera("slow", 0.05)
    world.attach(fast)
    world.attach(slow)
    world.advance(100.1)
    times = [time_s for _, time_s in taken]
    assert times == sorted(times)
    np.testing.assert_allclose([t for n, t in taken if n == "fast"], [100.02, 100.04, 100.06, 100.08, 100.1])
    np.testing.assert_allclose([t for n, t in taken if n == "slow"], [100.05, 100.1])
    world.detach(fast)
    world.advance(100.2)
    assert len([name for name, _ in taken if name == "fast"]) == 5


def test_world_is_never_ahead_of_the_clock_and_less_than_a_step_behind(world: SimulatedWorld) -> None:
    for at_s in (100.0021, 100.0049, 100.0075, 100.05, 100.0749, 100.1):
        world.advance(at_s)
        behind_s = at_s - world.arm_state().measured_s
        assert -1e-6 <= behind_s < TIMESTEP_S

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot.fr3 import DH, FLANGE_M, HAND_YAW_RAD, HOME_Q_RAD, TCP_M, FR3Kinematics
from robot.geometry import pose, pose_error, rotvec_to_matrix
from robot.kinematics import POSITION_TOLERANCE_M, ROTATION_TOLERANCE_RAD

Array = NDArray[np.float64]

KINEMATICS = FR3Kinematics()
LIMITS = KINEMATICS.joint_limits
HOME_Q = np.array(HOME_Q_RAD)

JOINTS = st.lists(st.floats(0.02, 0.98), min_size=7, max_size=7).map(
    lambda shares: LIMITS.q_min_rad + np.array(shares) * (LIMITS.q_max_rad - LIMITS.q_min_rad)
)
NEAR_HOME = st.lists(st.floats(-0.4, 0.4), min_size=7, max_size=7).map(lambda offset: HOME_Q + np.array(offset))
TICK = st.tuples(
    st.lists(st.floats(-0.015, 0.015), min_size=3, max_size=3), st.lists(st.floats(-0.05, 0.05), min_size=3, max_size=3)
)


def moved(T: Array, tick: tuple[list[float], list[float]]) -> Array:
    return pose(rotvec_to_matrix(np.array(tick[1])) @ T[:3, :3], T[:3, 3] + np.array(tick[0]))


def forward_by_dh(q_rad: Array) -> Array:
    """The data sheet's table multiplied out matrix by matrix (Craig, Introduction to Robotics, eq. 3.6)."""
    T = np.eye(4)
    for (a, alpha, d), angle in zip([*DH, (0.0, 0.0, FLANGE_M)], [*q_rad, 0.0], strict=True):
        ct, st_, ca, sa = math.cos(angle), math.sin(angle), math.cos(alpha), math.sin(alpha)
        T = T @ np.array(
            [
                [ct, -st_, 0.0, a],
                [st_ * ca, ct * ca, -sa, -d * sa],
                [st_ * sa, ct * sa, ca, d * ca],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
    T_flange_tcp = pose(rotvec_to_matrix(np.array([0.0, 0.0, HAND_YAW_RAD])), np.array([0.0, 0.0, TCP_M]))
    return T @ T_flange_tcp


@given(JOINTS)
def test_forward_is_the_data_sheets_table(q_rad: Array) -> None:
    np.testing.assert_allclose(KINEMATICS.forward(q_rad), forward_by_dh(q_rad), atol=1e-14)


def test_home_is_where_franka_says_it_is() -> None:
    # the "ready" pose of libfranka's examples: gripper down, 307 mm ahead
    T = KINEMATICS.forward(HOME_Q)
    np.testing.assert_allclose(T[:3, 3], [0.3069, 0.0, 0.4869], atol=1e-3)
    np.testing.assert_allclose(T[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-12)


@given(JOINTS)
def test_jacobian_is_the_derivative_of_forward(q_rad: Array) -> None:
    step = 1e-6
    numeric = np.stack(
        [
            pose_error(KINEMATICS.forward(q_rad + step * axis), KINEMATICS.forward(q_rad - step * axis)) / (2 * step)
            for axis in np.eye(7)
        ],
        axis=1,
    )
    np.testing.assert_allclose(KINEMATICS.jacobian(q_rad), numeric, atol=1e-8)


@given(JOINTS, TICK)
def test_what_solve_returns_reaches_the_pose(q_rad: Array, tick: tuple[list[float], list[float]]) -> None:
    T_goal = moved(KINEMATICS.forward(q_rad), tick)
    solution = KINEMATICS.solve(T_goal, q_rad)
    if solution is not None:
        error = pose_error(T_goal, KINEMATICS.forward(solution))
        assert np.linalg.norm(error[:3]) < POSITION_TOLERANCE_M
        assert np.linalg.norm(error[3:]) < ROTATION_TOLERANCE_RAD


@given(NEAR_HOME, TICK)
def test_a_move_of_one_tick_is_always_solved_near_the_start(
    q_rad: Array, tick: tuple[list[float], list[float]]
) -> None:
    solution = KINEMATICS.solve(moved(KINEMATICS.forward(q_rad), tick), q_rad)
    assert solution is not None
    assert np.abs(solution - q_rad).max() < 0.5


@given(NEAR_HOME, TICK)
def test_same_pose_and_start_give_the_same_bits(q_rad: Array, tick: tuple[list[float], list[float]]) -> None:
    T_goal = moved(KINEMATICS.forward(q_rad), tick)
    first, second = KINEMATICS.solve(T_goal, q_rad), FR3Kinematics().solve(T_goal.copy(), q_rad.copy())
    assert first is not None
    assert second is not None
    assert first.tobytes() == second.tobytes()


@given(JOINTS)
def test_a_pose_that_is_reached_already_moves_no_joint(q_rad: Array) -> None:
    solution = KINEMATICS.solve(KINEMATICS.forward(q_rad), q_rad)
    assert solution is not None
    np.testing.assert_array_equal(solution, q_rad)


@settings(max_examples=20)
@given(st.floats(-0.5, 0.5))
def test_elbow_comes_back_to_the_rest_posture_while_the_tcp_moves(elbow_rad: float) -> None:
    # turn the elbow in the null space, then drive round a circle that ends where it began
    T_home = KINEMATICS.forward(HOME_Q)
    turned = HOME_Q + np.array([elbow_rad, 0, -elbow_rad, 0, 0, 0, 0])
    q_rad = KINEMATICS.solve(T_home, turned)
    assert q_rad is not None
    before_rad = np.abs(q_rad - HOME_Q).max()
    for angle in np.linspace(0.0, 6.0 * math.pi, 300):
        offset = 0.05 * np.array([1.0 - math.cos(angle), math.sin(angle), 0.0])
        q_rad = KINEMATICS.solve(pose(T_home[:3, :3], T_home[:3, 3] + offset), q_rad)
        assert q_rad is not None
    assert np.abs(q_rad - HOME_Q).max() <= 0.5 * before_rad + 0.02


@pytest.mark.parametrize("p", [[2.0, 0.0, 0.5], [math.nan, 0.0, 0.5], [math.inf, 0.0, 0.5]])
def test_a_pose_out_of_reach_has_no_solution(p: list[float]) -> None:
    assert KINEMATICS.solve(pose(KINEMATICS.forward(HOME_Q)[:3, :3], np.array(p)), HOME_Q) is None


class Counted(FR3Kinematics):
    """Counts how often it is asked for a Jacobian."""

    jacobians = 0

    def jacobian(self, q_rad: Array) -> Array:
        self.jacobians += 1
        return super().jacobian(q_rad)


def test_a_small_move_is_solved_with_one_jacobian() -> None:
    kinematics = Counted()
    T = moved(KINEMATICS.forward(HOME_Q), ([0.005, 0.0, -0.005], [0.0, 0.02, 0.0]))
    assert kinematics.solve(T, HOME_Q) is not None
    assert kinematics.jacobians == 1


def test_a_far_move_renews_its_jacobian() -> None:
    kinematics = Counted()
    T = moved(KINEMATICS.forward(HOME_Q), ([0.15, 0.2, -0.1], [0.0, 0.6, 0.8]))
    assert kinematics.solve(T, HOME_Q) is not None
    assert kinematics.jacobians > 1

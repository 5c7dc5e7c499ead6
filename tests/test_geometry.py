import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from robot.geometry import (
    interpolate_pose,
    inverse_pose,
    matrix_to_quat_wxyz,
    matrix_to_rotvec,
    orthonormalise,
    pose,
    pose_error,
    rotation_angle,
    rotvec_to_matrix,
    straightened,
)

Array = NDArray[np.float64]

VECTORS = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3).map(np.array)
TINY = st.lists(st.floats(-1e-6, 1e-6), min_size=3, max_size=3).map(np.array)
ROTVECS = st.one_of(VECTORS, TINY)
POSES = st.builds(lambda rotvec, p: pose(rotvec_to_matrix(rotvec), p), ROTVECS, VECTORS)


@given(ROTVECS)
def test_rotation_vector_gives_the_same_matrix_as_scipy(rotvec: Array) -> None:
    np.testing.assert_allclose(rotvec_to_matrix(rotvec), Rotation.from_rotvec(rotvec).as_matrix(), atol=1e-14)


@given(ROTVECS)
def test_matrix_gives_the_same_quaternion_as_scipy_up_to_sign(rotvec: Array) -> None:
    R = Rotation.from_rotvec(rotvec).as_matrix()
    w, x, y, z = matrix_to_quat_wxyz(R)
    expected = Rotation.from_matrix(R).as_quat()
    assert w >= 0.0
    assert abs(abs(float(expected @ [x, y, z, w])) - 1.0) < 1e-14


@given(ROTVECS)
def test_rotation_vector_survives_the_way_through_a_matrix(rotvec: Array) -> None:
    R = rotvec_to_matrix(rotvec)
    again = matrix_to_rotvec(R)
    assert np.linalg.norm(again) <= math.pi + 1e-12
    np.testing.assert_allclose(rotvec_to_matrix(again), R, atol=1e-14)


@pytest.mark.parametrize("axis", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.0, -0.8]])
def test_half_turns_are_exact(axis: list[float]) -> None:
    rotvec = math.pi * np.array(axis)
    again = matrix_to_rotvec(rotvec_to_matrix(rotvec))
    np.testing.assert_allclose(np.abs(again), np.abs(rotvec), atol=1e-12)


def test_no_rotation_is_exactly_zero_both_ways() -> None:
    np.testing.assert_array_equal(rotvec_to_matrix(np.zeros(3)), np.eye(3))
    np.testing.assert_array_equal(matrix_to_rotvec(np.eye(3)), np.zeros(3))


def test_small_and_large_angle_formulas_meet() -> None:
    below, above = np.array([0.0, 0.0, 0.99999e-4]), np.array([0.0, 0.0, 1.00001e-4])
    for rotvec in (below, above):
        np.testing.assert_allclose(rotvec_to_matrix(rotvec)[1, 0], math.sin(rotvec[2]), rtol=1e-15)


@given(POSES)
def test_pose_times_its_inverse_is_the_identity(T: Array) -> None:
    np.testing.assert_allclose(T @ inverse_pose(T), np.eye(4), atol=1e-12)


@given(POSES, POSES)
def test_pose_error_takes_one_pose_to_the_other(T_a: Array, T_b: Array) -> None:
    error = pose_error(T_b, T_a)
    np.testing.assert_allclose(T_a[:3, 3] + error[:3], T_b[:3, 3], atol=1e-12)
    np.testing.assert_allclose(rotvec_to_matrix(error[3:]) @ T_a[:3, :3], T_b[:3, :3], atol=1e-12)
    assert rotation_angle(T_a[:3, :3], T_b[:3, :3]) == pytest.approx(float(np.linalg.norm(error[3:])), abs=1e-9)


@given(POSES, POSES, st.floats(0.0, 1.0))
def test_interpolation_moves_at_constant_speed_on_a_line_and_about_one_axis(
    T_a: Array, T_b: Array, share: float
) -> None:
    T = interpolate_pose(T_a, T_b, share)
    np.testing.assert_allclose(T[:3, 3], (1.0 - share) * T_a[:3, 3] + share * T_b[:3, 3], atol=1e-12)
    whole = rotation_angle(T_b[:3, :3], T_a[:3, :3])
    assert rotation_angle(T[:3, :3], T_a[:3, :3]) == pytest.approx(share * whole, abs=1e-7)
    assert rotation_angle(T_b[:3, :3], T[:3, :3]) == pytest.approx((1.0 - share) * whole, abs=1e-7)


@given(ROTVECS, st.lists(st.floats(-1e-3, 1e-3), min_size=9, max_size=9))
def test_orthonormalising_gives_a_rotation_and_does_not_move_a_good_one(rotvec: Array, noise: list[float]) -> None:
    R = rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(orthonormalise(R), R, atol=1e-14)
    near = orthonormalise(R + np.array(noise).reshape(3, 3))
    np.testing.assert_allclose(near @ near.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(near) > 0.0
    assert rotation_angle(near, R) < 3e-3


@pytest.mark.parametrize("R", [np.zeros((3, 3)), np.diag([1.0, 1.0, -1.0]), np.diag([1.0, 1.0, 0.1])])
def test_orthonormalising_what_is_no_rotation_is_refused(R: Array) -> None:
    with pytest.raises(ValueError, match="not near a rotation matrix"):
        orthonormalise(R)


def test_straightening_keeps_long_products_of_rotations_rotations() -> None:
    R, turn = np.eye(3), rotvec_to_matrix(np.array([0.01, -0.02, 0.03])) * (1.0 + 1e-9)
    for _ in range(2000):
        R = straightened(turn @ R)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-14)
    expected = rotvec_to_matrix(2000 * np.array([0.01, -0.02, 0.03]))
    np.testing.assert_allclose(R, expected, atol=1e-11)

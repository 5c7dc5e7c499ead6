"""The maths under a hand-eye fit: derivatives, closed forms, interpolation, correlation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.hand_eye_coverage import sightings
from benchmarks.hand_eye_rigs import RIGS, Rig, moving, standing
from calibration.closed_forms import METHODS
from calibration.hand_eye_model import HandEye, camera_errors, jacobian, residuals
from calibration.pose_track import PoseTrack
from calibration.rotations import exponentials, inverse_right_jacobians, logarithms
from calibration.time_offset import correlate_speeds


@pytest.mark.parametrize("rig", RIGS[:3], ids=lambda rig: rig.name)
def test_jacobian_is_the_derivative_of_the_residuals(rig: Rig) -> None:
    rng = np.random.default_rng(0)
    take = moving(rig, rng, seconds=6.0, outliers=0.2)
    seen = sightings(take, rig, still=False)
    off = np.array([0.02, -0.03, 0.01, 0.004, -0.002, 0.003, -0.02, 0.01, 0.03, 0.005, -0.004, 0.001, 0.01])
    at = HandEye(X=take.X, Y=take.Y, offset_s=take.offset_s).moved(off)
    centre = np.array([0.1, 0.05, 0.01])
    arm = seen.arm(at.offset_s)
    J = jacobian(seen, at, centre, residuals(seen, at, centre)[:, :3], arm)
    steps = np.eye(13) * 1e-6
    numeric = [
        (residuals(seen, at.moved(step), centre) - residuals(seen, at.moved(-step), centre)) / 2e-6 for step in steps
    ]
    np.testing.assert_allclose(J, np.stack(numeric, axis=2), atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rig", RIGS[:3], ids=lambda rig: rig.name)
def test_closed_forms_are_exact_without_noise(rig: Rig, method: str) -> None:
    take = standing(rig, np.random.default_rng(1), poses=8, noise_px=0.0)
    A = np.linalg.inv(take.T_base_hand) if rig.beside else take.T_base_hand
    X, Y = METHODS[method](A, take.T_target_camera)
    np.testing.assert_allclose(X, take.X, atol=1e-6)
    np.testing.assert_allclose(Y, take.Y, atol=1e-6)


def test_errors_of_the_truth_are_those_of_the_sightings() -> None:
    take = standing(RIGS[0], np.random.default_rng(2), noise_px=0.0, outliers=0.3)
    seen = sightings(take, RIGS[0], still=True)
    distance, angle = camera_errors(seen, HandEye(X=take.X, Y=take.Y))
    assert (np.maximum(distance, angle)[~take.outlier] < 1e-9).all()
    assert (np.maximum(distance, angle)[take.outlier] > 1e-3).all()


def test_logarithm_to_first_order() -> None:
    rng = np.random.default_rng(3)
    r = rng.normal(size=(40, 3)) * np.concatenate([np.full(20, 1e-6), np.full(20, 0.7)])[:, None]
    d = rng.normal(size=(40, 3)) * 1e-6
    moved = logarithms(exponentials(r) @ exponentials(d))
    np.testing.assert_allclose(moved, r + np.einsum("nij,nj->ni", inverse_right_jacobians(r), d), atol=1e-10)


def test_track_follows_a_turning_arm_between_its_samples() -> None:
    def truth(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = np.stack([0.3 * np.sin(2.0 * t), 0.2 * np.cos(3.0 * t), 0.1 * t], axis=1)
        return p, np.stack([0.5 * np.sin(2.0 * t), 0.4 * np.cos(1.5 * t), 0.7 * np.sin(t)], axis=1)

    t = np.arange(0.0, 6.0, 0.05)
    p, r = truth(t)
    track = PoseTrack(t, p, Rotation.from_rotvec(r).as_quat())
    at = np.linspace(0.5, 5.5, 333)
    arm = track.at(at)
    p, r = truth(at)
    assert np.abs(arm.p - p).max() < 2e-5
    assert np.abs(logarithms(arm.R.transpose(0, 2, 1) @ exponentials(r))).max() < 5e-5
    before, after = track.at(at - 1e-5), track.at(at + 1e-5)
    np.testing.assert_allclose(arm.v, (after.p - before.p) / 2e-5, atol=1e-6)
    np.testing.assert_allclose(arm.omega, logarithms(before.R.transpose(0, 2, 1) @ after.R) / 2e-5, atol=1e-5)
    back = arm.inverse()
    np.testing.assert_allclose(back.v, (after.inverse().p - before.inverse().p) / 2e-5, atol=1e-5)
    turned = logarithms(before.inverse().R.transpose(0, 2, 1) @ after.inverse().R)
    np.testing.assert_allclose(back.omega, turned / 2e-5, atol=1e-5)


def test_track_covers_no_gaps() -> None:
    t = np.concatenate([np.arange(0.0, 1.0, 0.01), np.arange(2.0, 3.0, 0.01)])
    track = PoseTrack(t, np.zeros((len(t), 3)), np.tile([0.0, 0.0, 0.0, 1.0], (len(t), 1)))
    assert track.covers(np.array([-0.1, 0.5, 1.5, 2.5, 3.5])).tolist() == [False, True, False, True, False]
    assert track.covers(np.array([0.05, 0.5, 2.05]), 0.1).tolist() == [False, True, False]


@pytest.mark.parametrize("offset_s", [-3.2, 0.04, 1.1])
def test_speeds_correlate_at_the_offset(offset_s: float) -> None:
    take = moving(RIGS[0], np.random.default_rng(5), seconds=25.0, offset_s=offset_s, outliers=0.2)
    quat_a, quat_b = (Rotation.from_matrix(T[:, :3, :3]).as_quat() for T in (take.T_base_hand, take.T_target_camera))
    curve = correlate_speeds(take.t_robot_s, quat_a, take.t_target_s, quat_b)
    assert curve is not None
    assert curve.best > 0.8
    assert curve.peaks_s[0] == pytest.approx(offset_s, abs=0.02)


def test_what_does_not_turn_has_no_offset() -> None:
    t = np.arange(0.0, 10.0, 0.01)
    still = np.tile([0.0, 0.0, 0.0, 1.0], (len(t), 1))
    assert correlate_speeds(t[:5], still[:5], t, still) is None

"""Hand-eye calibration on simulated rigs: truth, intervals, refusals."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.hand_eye_coverage import draw_errors
from benchmarks.hand_eye_rigs import RIGS, Rig, Take, moving, standing, write_poses
from calibration.hand_eye import Calibrated, calibrate, other_way
from calibration.pairing import from_views, pair
from calibration.pose_file import read_pose_file
from calibration.refused import CalibrationRefusedError
from calibration.rotations import logarithms

WRIST, FAR, BESIDE, _ = RIGS


def solved(take: Take, folder: Path, *, beside: bool = False) -> Calibrated:
    robot = read_pose_file(write_poses(folder / "robot.csv", take.t_robot_s, take.T_base_hand))
    target = read_pose_file(write_poses(folder / "target.csv", take.t_target_s, take.T_target_camera))
    return calibrate(pair(robot, target, beside=beside)[0])


def assert_true(found: Calibrated, take: Take) -> None:
    """Within 1 mm, 0.1 degrees and 3 ms of the truth."""
    estimate = found.fit.estimate
    for T, truth in ((estimate.X, take.X), (estimate.Y, take.Y)):
        assert np.linalg.norm(T[:3, 3] - truth[:3, 3]) < 1e-3
        assert np.rad2deg(np.linalg.norm(logarithms((T[:3, :3] @ truth[:3, :3].T)[None]))) < 0.1
    assert abs(estimate.offset_s - take.offset_s) < 3e-3


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.name)
def test_moving_camera_is_found_with_offset_and_outliers(rig: Rig, tmp_path: Path) -> None:
    take = moving(rig, np.random.default_rng(0))
    found = solved(take, tmp_path, beside=rig.beside)
    assert_true(found, take)
    assert found.failures == ()
    assert not found.held_out.inlier[take.outlier[: len(found.seen)]].any()
    assert found.held_out.inlier.mean() > 0.8


@pytest.mark.parametrize("offset_s", [-2.7, 1.3, 12.0])
def test_clocks_may_be_seconds_apart(offset_s: float, tmp_path: Path) -> None:
    take = moving(WRIST, np.random.default_rng(1), seconds=40.0, offset_s=offset_s)
    found = solved(take, tmp_path)
    assert_true(found, take)
    assert found.failures == ()


def test_two_of_five_poses_may_be_wrong(tmp_path: Path) -> None:
    take = moving(WRIST, np.random.default_rng(2), seconds=20.0, outliers=0.4)
    found = solved(take, tmp_path)
    assert_true(found, take)
    assert any("outliers" in warning for warning in found.warnings)


@pytest.mark.parametrize("robot_hz", [6.0, 500.0])
def test_rates_of_the_arm_from_slow_to_fast(robot_hz: float, tmp_path: Path) -> None:
    take = moving(WRIST, np.random.default_rng(3), seconds=15.0, robot_hz=robot_hz)
    assert_true(solved(take, tmp_path), take)


@pytest.mark.parametrize("rig", [WRIST, BESIDE], ids=lambda rig: rig.name)
def test_twenty_stills_are_enough(rig: Rig, tmp_path: Path) -> None:
    take = standing(rig, np.random.default_rng(4))
    found = solved(take, tmp_path, beside=rig.beside)
    assert_true(found, take)
    assert found.failures == ()
    assert found.curve is None
    assert found.fit.estimate.offset_s == 0.0
    views = from_views(take.T_base_hand, take.T_target_camera, beside=rig.beside)
    np.testing.assert_allclose(calibrate(views).fit.estimate.X, found.fit.estimate.X, atol=1e-8)


def test_stamps_in_step_do_not_make_stills_of_a_moving_arm(tmp_path: Path) -> None:
    """One clock stamps both at 10 Hz, and the camera's poses are 40 ms old: the offset is there to be found."""
    take = moving(WRIST, np.random.default_rng(11), robot_hz=10.0, camera_hz=10.0)
    stamps = take.t_target_s.round(1)
    assert np.isin(stamps.round(3), take.t_robot_s.round(3)).mean() > 0.95
    found = solved(dataclasses.replace(take, t_target_s=stamps), tmp_path)
    assert found.curve is not None
    assert found.fit.free[12]


def test_stills_may_be_numbered_by_tenths(tmp_path: Path) -> None:
    take = standing(WRIST, np.random.default_rng(12))
    tenths = dataclasses.replace(take, t_robot_s=take.t_robot_s / 10.0, t_target_s=take.t_target_s / 10.0)
    found = solved(tenths, tmp_path)
    assert found.curve is None
    assert_true(found, take)


def test_small_turns_are_advised_against_and_still_true(tmp_path: Path) -> None:
    rig = dataclasses.replace(WRIST, tilt_rad=0.05, roll_rad=0.05)
    take = moving(rig, np.random.default_rng(5), seconds=15.0)
    found = solved(take, tmp_path)
    assert_true(found, take)
    assert any(re.match("rotate more about x of the hand: [45] degrees seen", one) for one in found.warnings)
    wide = solved(moving(WRIST, np.random.default_rng(5), seconds=15.0), tmp_path)
    assert found.uncertainty.half_width[3:6].max() > 2.0 * wide.uncertainty.half_width[3:6].max()


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ({"tilt_rad": 0.0}, "one rotation axis: .*rotate more about x or y"),
        ({"tilt_rad": 0.0, "roll_rad": 0.0}, "pure translation"),
    ],
)
def test_degenerate_motion_is_refused_with_the_reason(
    turns: dict[str, float], reason: str, still: bool, tmp_path: Path
) -> None:
    rig = dataclasses.replace(WRIST, **turns)
    rng = np.random.default_rng(6)
    with pytest.raises(CalibrationRefusedError, match=reason):
        solved(standing(rig, rng) if still else moving(rig, rng), tmp_path)


def test_two_poses_are_refused_and_five_are_sure_of_little(tmp_path: Path) -> None:
    with pytest.raises(CalibrationRefusedError, match=r"^2 poses: two motions about different axes"):
        solved(standing(WRIST, np.random.default_rng(7), poses=2), tmp_path)
    take = standing(WRIST, np.random.default_rng(7), poses=5)
    few = solved(take, tmp_path).uncertainty.half_width[3:6].max()
    many = solved(standing(WRIST, np.random.default_rng(7)), tmp_path).uncertainty.half_width[3:6].max()
    assert few > 3.0 * many


@pytest.mark.parametrize("rig", [WRIST, BESIDE], ids=lambda rig: rig.name)
def test_camera_on_the_other_side_is_recognised(rig: Rig, tmp_path: Path) -> None:
    take = moving(rig, np.random.default_rng(8), seconds=15.0)
    wrong = solved(take, tmp_path, beside=not rig.beside)
    assert len(wrong.failures) >= 2
    assert other_way(wrong)
    assert not other_way(solved(take, tmp_path, beside=rig.beside))


def test_poses_that_do_not_belong_together_fail(tmp_path: Path) -> None:
    take = moving(WRIST, np.random.default_rng(9), seconds=15.0)
    shuffled = np.random.default_rng(0).permutation(take.T_target_camera)
    found = solved(dataclasses.replace(take, T_target_camera=shuffled), tmp_path)
    assert any("held-out translation error" in failure for failure in found.failures)


def test_target_that_moved_half_way_is_told(tmp_path: Path) -> None:
    take = moving(WRIST, np.random.default_rng(10))
    moved: NDArray[np.float64] = take.T_target_camera.copy()
    moved[700:, :3, 3] += [0.05, 0.0, 0.0]
    found = solved(dataclasses.replace(take, T_target_camera=moved), tmp_path)
    assert any("in a row are outliers: did the target, or the camera, move?" in warning for warning in found.warnings)


@pytest.mark.parametrize(("rig", "still", "draws"), [(WRIST, True, 50), (FAR, True, 50), (WRIST, False, 8)])
def test_intervals_hold_the_truth_as_often_as_they_say(rig: Rig, still: bool, draws: int) -> None:
    """Of 95 % intervals; over 200 draws the benchmark finds each component within 90 to 99 %."""
    inside = [np.abs(error) <= half for error, half in (draw_errors(rig, seed, still=still) for seed in range(draws))]
    assert 0.90 <= np.mean(inside) <= 0.99

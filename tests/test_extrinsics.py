"""All cameras of a rig at once, against rigs of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.extrinsics import Extrinsics, adjust
from calibration.refused import CalibrationRefusedError
from calibration.reprojection import Free, Reprojection, State, lens_root_px
from calibration.rig_sightings import BoardMount
from robot.geometry import pose, rotation_angle, rotvec_to_matrix
from tests.rig_scenes import Truth, scene, without


def errors(found: Extrinsics, truth: Truth) -> tuple[float, float]:
    """Greatest error of any camera, mm and degrees."""
    pairs = list(zip(found.T_mount_camera, truth.T_mount_camera, strict=True))
    return (
        1e3 * max(float(np.linalg.norm(T[:3, 3] - true[:3, 3])) for T, true in pairs),
        float(np.degrees(max(rotation_angle(T[:3, :3], true[:3, :3]) for T, true in pairs))),
    )


@pytest.mark.parametrize(
    ("board_mount", "wrist", "fixed", "turn_rad"),
    [
        ("hand", False, ("front", "side", "rear"), 0.5),
        ("free", True, ("front", "side", "rear"), 0.5),
        ("base", True, (), 0.9),
    ],
    ids=["board on the hand", "board anywhere", "board on the table"],
)
def test_cameras_are_found_within_a_millimetre_and_a_tenth_of_a_degree(
    board_mount: BoardMount, wrist: bool, fixed: tuple[str, ...], turn_rad: float
) -> None:
    for seed in range(2):
        truth = scene(board_mount, seed=seed, shots=30, fixed=fixed, wrist=wrist, turn_rad=turn_rad)
        found = adjust(truth.rig)
        mm, degrees = errors(found, truth)
        assert mm <= 1.0
        assert degrees <= 0.1
        assert not found.refusals()
        assert found.sigma_px == pytest.approx(0.3, rel=0.08)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    ratios = []
    for seed in range(16):
        truth = scene("hand", seed=100 + seed, shots=14)
        found = adjust(truth.rig)
        for T, true, half in zip(found.T_mount_camera, truth.T_mount_camera, found.half_widths, strict=True):
            turn = _rotvec(T[:3, :3].T @ true[:3, :3])
            ratios.append(np.concatenate([true[:3, 3] - T[:3, 3], turn]) / half)
    inside = np.mean(np.abs(np.array(ratios)) <= 1.0)
    assert 0.88 <= inside <= 0.995


def _rotvec(R: np.ndarray) -> np.ndarray:
    return 0.5 * np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])


def test_a_wrong_pose_of_the_arm_is_left_out_and_named() -> None:
    truth = scene("hand", seed=1, shots=24)
    hands = list(truth.rig.T_base_hand)
    for shot in (3, 11):
        hand = hands[shot]
        assert hand is not None
        hands[shot] = hand @ pose(rotvec_to_matrix(np.array([0.1, 0.0, 0.05])), np.array([0.03, 0.0, 0.01]))
    found = adjust(replace(truth.rig, T_base_hand=tuple(hands)))
    assert {one.shot for one in found.left_out} == {3, 11}
    mm, degrees = errors(found, truth)
    assert mm <= 1.2
    assert degrees <= 0.12


def test_a_camera_that_shares_no_shot_is_refused_by_name() -> None:
    truth = scene("free", seed=2, shots=24, fixed=("front", "side", "rear"), wrist=True)
    shots = {one.shot for one in truth.rig.sightings if one.camera != 2}
    loose = without(truth, "rear", sorted(shots))
    own = [replace(one, shot=24 + number) for number, one in enumerate(truth.rig.sightings) if one.camera == 2][:6]
    own = [replace(one, shot=24 + number) for number, one in enumerate(own)]
    rig = replace(
        loose,
        sightings=(*loose.sightings, *own),
        shots=tuple(str(number) for number in range(30)),
        T_base_hand=(*loose.T_base_hand, *([None] * 6)),
    )
    with pytest.raises(CalibrationRefusedError, match="camera 'rear' shared no shot with front, side, wrist"):
        adjust(rig)


def test_a_blind_camera_is_refused_by_name() -> None:
    truth = scene("hand", seed=0)
    with pytest.raises(CalibrationRefusedError, match="camera 'side' never saw the board"):
        adjust(without(truth, "side", range(20)))


@pytest.mark.parametrize(
    ("board_mount", "fixed", "wrist", "cure"),
    [
        ("free", ("front", "side"), False, "add a camera on the hand, or let the arm hold the board"),
        ("base", ("front",), False, "nothing moves"),
        ("hand", (), True, "put the board down"),
    ],
)
def test_what_nothing_ties_to_the_arm_says_what_would(
    board_mount: BoardMount, fixed: tuple[str, ...], wrist: bool, cure: str
) -> None:
    truth = scene(board_mount if board_mount != "hand" else "base", seed=0, fixed=fixed, wrist=wrist, shots=8)
    with pytest.raises(CalibrationRefusedError, match=f"nothing ties camera.* to the arm; .*{cure}"):
        adjust(replace(truth.rig, board_mount=board_mount))


def test_turning_about_one_axis_only_is_refused() -> None:
    truth = scene("hand", seed=0, fixed=("front",), axis=(0.0, 0.0, 1.0))
    try:
        why = adjust(truth.rig).refusals()
    except CalibrationRefusedError as error:
        why = [str(error)]
    assert any("turned about two axes" in line or "leave a direction open" in line for line in why)


def test_mixed_up_shots_are_refused() -> None:
    truth = scene("hand", seed=0)
    rig = replace(truth.rig, T_base_hand=tuple(reversed(truth.rig.T_base_hand)))
    try:
        why = adjust(rig).refusals()
    except CalibrationRefusedError as error:
        why = [str(error)]
    assert any("contradict" in line or "held-out error" in line or "agree with the others" in line for line in why)


def test_the_sparse_jacobian_is_that_of_the_residuals() -> None:
    truth = scene("free", seed=0, shots=4, fixed=("front",), wrist=True)
    boards = tuple(np.linalg.inv(np.eye(4)) for _ in range(4))
    boards = tuple(pose(np.diag([1.0, -1.0, -1.0]), np.array([0.4, 0.1, 0.2])) for _ in boards)
    models = tuple(camera.model for camera in truth.rig.cameras)
    state = State(models=models, cameras=truth.T_mount_camera, boards=boards)
    problem = Reprojection(
        truth.rig.blocks({number: number for number in range(4)}), Free(intrinsics=True), huber_px=None
    )
    J = problem.jacobian(state).toarray()
    assert (J != 0.0).mean() < 0.6
    for column in range(problem.size(state)):
        step = np.zeros(problem.size(state))
        step[column] = 1e-6
        up, down = problem.moved(state, step), problem.moved(state, -step)
        assert up is not None
        assert down is not None
        change = np.concatenate(problem.residuals(down)) - np.concatenate(problem.residuals(up))
        assert np.abs(change.ravel() / 2e-6 - J[:, column]).max() < 1e-3 * max(1.0, np.abs(J[:, column]).max())


def test_intervals_hold_with_lenses_that_are_known_only_so_well() -> None:
    covariance = np.diag(np.array([2.0, 2.0, 2.0, 2.0, 1e-3, 1e-3, 1e-4, 1e-4, 1e-3]) ** 2)
    root_px = lens_root_px(covariance, 0.3)
    random = np.random.default_rng(0)
    ratios, held = [], []
    for seed in range(8):
        truth = scene("hand", seed=200 + seed, shots=14)
        models = [
            camera.model.with_values(random.multivariate_normal(camera.model.values, covariance))
            for camera in truth.rig.cameras
        ]
        cameras = tuple(
            replace(camera, model=model, lens_root_px=root_px)
            for camera, model in zip(truth.rig.cameras, models, strict=True)
        )
        rig = replace(truth.rig, cameras=cameras)
        for hold, into in ((False, ratios), (True, held)):
            found = adjust(rig, hold_lenses=hold)
            for T, true, half in zip(found.T_mount_camera, truth.T_mount_camera, found.half_widths, strict=True):
                turn = _rotvec(T[:3, :3].T @ true[:3, :3])
                into.append(np.concatenate([true[:3, 3] - T[:3, 3], turn]) / half)
    assert np.mean(np.abs(np.array(ratios)) <= 1.0) >= 0.88
    # taken as exact, the same lenses would make the intervals lie
    assert np.mean(np.abs(np.array(held)) <= 1.0) < 0.8

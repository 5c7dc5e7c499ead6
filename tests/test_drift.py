"""What has moved since a rig was calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.drift import check_rig
from calibration.refused import CalibrationRefusedError
from robot.geometry import pose, rotvec_to_matrix
from tests.rig_scenes import T_HAND_BOARD, Truth, scene

BUMP = pose(rotvec_to_matrix(np.radians([0.6, 0.0, 0.0])), np.array([0.012, 0.0, 0.0]))


def warnings(truth: Truth, moved: tuple[int, ...] = (), *, same_place: bool = False) -> list[str]:
    stored = [T @ BUMP if number in moved else T for number, T in enumerate(truth.T_mount_camera)]
    board = T_HAND_BOARD if same_place else None
    found = check_rig(truth.rig, stored, board, [0.4] * len(stored))
    return [line for one in found for line in one.warnings]


FREE = scene("free", seed=7, shots=6, fixed=("front", "side", "rear"), wrist=True)
HELD = scene("hand", seed=7, shots=6)


def test_nothing_is_said_where_nothing_moved() -> None:
    assert warnings(FREE) == []
    assert warnings(HELD, same_place=True) == []


def test_the_camera_that_moved_is_named_and_no_other() -> None:
    (line,) = warnings(FREE, moved=(1,))
    assert line.startswith("camera 'side' is ")
    (line,) = warnings(HELD, moved=(0,), same_place=True)
    assert line.startswith("camera 'front' is ")


def test_groups_that_moved_apart_are_named_as_pairs() -> None:
    lines = warnings(FREE, moved=(0, 1))
    assert lines
    assert all("groups of them have moved" in line or line.startswith("camera '") for line in lines)


def test_a_lens_that_changed_shows_and_is_named() -> None:
    zoomed = np.array([0.0, 90.0, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0])
    cameras = tuple(
        replace(camera, model=camera.model.with_values(camera.model.values + zoomed))
        if camera.name == "side"
        else camera
        for camera in FREE.rig.cameras
    )
    found = check_rig(replace(FREE.rig, cameras=cameras), list(FREE.T_mount_camera), None, [0.4] * 4)
    said = [line for one in found for line in one.warnings if "was its focus, zoom or mode changed" in line]
    assert [line.split(":")[0] for line in said] == ["camera 'side'"]


def test_what_each_sighting_says_is_kept_and_its_median_is_the_figure() -> None:
    moved = [FREE.T_mount_camera[0] @ BUMP, *FREE.T_mount_camera[1:]]
    for drift in check_rig(FREE.rig, moved, None, [0.4] * 4):
        by_camera = {
            other: [one for one in drift.seen if one.against == other] for other in {o.against for o in drift.seen}
        }
        medians = [float(np.median([one.translation_mm for one in seen])) for seen in by_camera.values()]
        assert drift.translation_mm == pytest.approx(min(medians))
        assert drift.name not in by_camera
        assert {one.shot for one in drift.seen} <= set(FREE.rig.shots)


def test_a_camera_without_a_usable_picture_is_told_what_it_lacks() -> None:
    rest = tuple(one for one in FREE.rig.sightings if one.camera != 3)
    *_, wrist = check_rig(replace(FREE.rig, sightings=rest), list(FREE.T_mount_camera), None, [0.4] * 4)
    assert wrist.lens_px is None
    assert wrist.seen == ()
    (line,) = wrist.warnings
    assert "none of its pictures can be used; show it the board, and give the arm's poses" in line


def test_too_little_to_compare_is_refused() -> None:
    alone = replace(FREE.rig, sightings=tuple(one for one in FREE.rig.sightings if one.camera == 0))
    with pytest.raises(CalibrationRefusedError, match="no camera has 3 sightings that could be compared"):
        check_rig(alone, list(FREE.T_mount_camera), None, [0.4] * 4)

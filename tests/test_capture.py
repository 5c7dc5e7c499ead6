"""What is taken and what is not, on a rig that shows what the test made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import calibration.capture
from calibration.capture import Capture, Shot
from calibration.capture_screen import screen
from calibration.shots_folder import ShotsFolder
from tests.calibration_scenes import BOARD, facing
from tests.rehearsed_rig import EYE, LOOK_S, WALL, Image8, RehearsedRig, Scene, colour, hand_poses, seen_from_hand

POSES = hand_poses(3)


@cache
def shown(number: int) -> Image8:
    return seen_from_hand(POSES[number], seed=number)


def at(number: int, **more: float) -> Scene:
    return Scene(pictures={"wrist": shown(number)}, T_base_hand=POSES[number], **more)


def capture(folder: Path, rig: RehearsedRig, board: object = BOARD) -> Capture:
    shots = ShotsFolder(folder, station=rig.station, board=BOARD, sizes=rig.sizes)
    made = Capture(shots, board, rig.sizes, has_arm=rig.has_arm)  # type: ignore[arg-type]
    made.resume()
    return made


def taken(made: Capture, scenes: Sequence[Scene], rig: RehearsedRig, *, take_at: int | None = None) -> list[Shot]:
    looks = sum(round(scene.for_s / LOOK_S) for scene in scenes)
    found = [made.step(rig.look(), take=number == take_at) for number in range(looks)]
    return [shot for shot in found if shot is not None]


def test_each_new_view_at_rest_is_taken_once_with_the_arms_pose(tmp_path: Path) -> None:
    scenes = [at(0, for_s=1.2), Scene(for_s=0.2), at(1, for_s=0.8), Scene(for_s=0.2), at(0, for_s=0.8)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        shots = taken(made, scenes, rig)
    assert [shot.number for shot in shots] == [1, 2]
    assert shots[0].with_arm
    assert shots[0].corners["wrist"] > 20
    np.testing.assert_allclose(made.folder.poses, POSES[:2], atol=1e-8)
    assert made.waits_for.startswith("another view")


def test_nothing_is_taken_while_the_hand_moves_though_the_picture_stands_still(tmp_path: Path) -> None:
    scenes = [at(0, for_s=1.2, moves_m_s=0.01)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert taken(made, scenes, rig) == []
        assert made.waits_for == "the arm to stand still"


def test_nothing_is_taken_in_the_first_half_second_of_rest(tmp_path: Path) -> None:
    scenes = [at(0, for_s=0.6), at(1, for_s=0.6), at(2, for_s=0.6)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert taken(made, scenes, rig) == []
        assert made.waits_for == "the board to stand still (wrist)"


def test_an_arm_that_says_nothing_stops_the_taking_and_is_told(tmp_path: Path) -> None:
    silent = Scene(pictures={"wrist": shown(0)}, T_base_hand=None)
    rig = RehearsedRig([silent])
    with capture(tmp_path, rig) as made:
        assert taken(made, [silent], rig, take_at=4) == []
        assert made.waits_for == "the arm: servo: arm state is 900 ms old"


def test_without_an_arm_the_board_alone_counts(tmp_path: Path) -> None:
    scenes = [at(0, for_s=0.8), at(1, for_s=0.8)]
    rig = RehearsedRig(scenes, arm=False)
    with capture(tmp_path, rig) as made:
        shots = taken(made, scenes, rig)
        assert [shot.with_arm for shot in shots] == [False, False]
        assert "hand" not in made.missing()
    assert not (tmp_path / "arm.csv").exists()


def test_a_blurred_picture_is_not_taken(tmp_path: Path) -> None:
    scenes = [Scene(pictures={"wrist": colour(EYE.render(facing(0.22), blur_px=3.0))})]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert taken(made, scenes, rig) == []
        assert made.waits_for.startswith("a sharp picture")
        assert any("BLURRED" in line for line in screen(made, count=9, news=()))


def test_enter_takes_a_known_view_at_once_and_never_one_without_the_board(tmp_path: Path) -> None:
    scenes = [at(0, for_s=1.2), Scene(for_s=0.4)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert len(taken(made, scenes[:1], rig, take_at=5)) == 2
        assert taken(made, scenes[1:], rig, take_at=1) == []


def test_in_motion_enter_keeps_where_the_hand_was_when_the_picture_was_taken(tmp_path: Path) -> None:
    scenes = [at(0, for_s=1.0, moves_m_s=0.05)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert len(taken(made, scenes, rig, take_at=4)) == 1
    captured_s = 101.0 - 0.03
    assert made.folder.poses[0][0, 3] == pytest.approx(POSES[0][0, 3] + 0.05 * captured_s, abs=1e-6)


def test_pictures_of_all_cameras_that_see_the_board_are_one_shot(tmp_path: Path) -> None:
    both: Mapping[str, Image8] = {"wrist": shown(0), "front": shown(1), "side": WALL}
    later: Mapping[str, Image8] = {"wrist": shown(2), "front": shown(1), "side": WALL}
    scenes = [Scene(pictures=both, for_s=0.8), Scene(pictures=later, for_s=0.8)]
    rig = RehearsedRig(scenes, cameras=("wrist", "front", "side"))
    with capture(tmp_path, rig) as made:
        shots = taken(made, scenes, rig)
    # a camera beside the arm shows what it showed; it belongs to the shot all the same
    assert [sorted(shot.corners) for shot in shots] == [["front", "wrist"]] * 2
    assert [path.stem for path in made.folder.pictures("front")] == ["001", "002"]


def test_a_camera_that_falls_silent_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    scenes = [Scene(pictures={"wrist": shown(0), "front": WALL}), at(1)]
    rig = RehearsedRig(scenes, cameras=("wrist", "front"))
    with capture(tmp_path, rig) as made:
        assert len(taken(made, scenes, rig)) == 2
        assert "no picture for 9 s; look at its cable, and that no other program has it" in "\n".join(
            screen(made, count=9, news=())
        )


def test_starting_again_goes_on_and_knows_the_views_that_are_there(tmp_path: Path) -> None:
    scenes = [at(0, for_s=0.8), at(1, for_s=0.8)]
    for expected in (2, 0):
        rig = RehearsedRig(scenes)
        with capture(tmp_path, rig) as made:
            assert len(taken(made, scenes, rig)) == expected
            assert made.count == 2
            assert made.guides["wrist"].count == 2
    assert len(made.folder.poses) == 2


def test_the_wrong_boards_file_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.capture, "_NOTHING_S", 0.2)
    scenes = [at(0, for_s=0.4)]
    for update, said in (
        ({"dictionary": "5X5_50"}, "wrist shows markers of 4X4_50, --board says 5X5_50"),
        ({"columns": 9, "rows": 5}, "wrist shows another board than 9 x 5 squares"),
    ):
        rig = RehearsedRig(scenes)
        with capture(tmp_path / str(len(said)), rig, BOARD.model_copy(update=update)) as made:
            assert taken(made, scenes, rig) == []
            assert said in made.hint


def test_the_screen_says_what_is_seen_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    scenes = [at(number, for_s=0.8) for number in range(3)]
    rig = RehearsedRig(scenes)
    with capture(tmp_path, rig) as made:
        assert len(taken(made, scenes, rig)) == 3
        lines = screen(made, count=9, news=["camera wrist was started again"])
    text = "\n".join(lines)
    assert f"{tmp_path}: 3 of 9 shots" in lines[0]
    assert "corners, still, known view" in text
    assert "waits for another view" in text
    assert "wrist 3" in text
    assert "hand      3 poses, turned about x" in text
    assert "missing   wrist: take 12 more pictures" in text
    assert "missing   hand: 12 more shots with other poses of the hand" in text
    assert lines[-1].endswith("camera wrist was started again")
    assert "#" in text

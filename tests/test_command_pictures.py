"""`calibrate_rig.py pictures` through the script, on episodes of which the way is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.hand_eye_result import HandEyeResult
from calibration.pose_file import read_pose_file
from calibration.result import read_result
from policy.stream_codec import Codec
from robot.geometry import pose, rotation_angle, rotvec_to_matrix
from teleop import cli
from tests.calibration_scenes import BOARD
from tests.drive_episodes import write_drive
from tests.known_lens import write_lens
from tests.rehearsed_rig import T_HAND_CAMERA, WALL, hand_poses, seen_from_hand
from tests.scripts import Scripts

Array = NDArray[np.float64]
NAME = "calibrate_rig"
SIZE = (24, 32)
RATE_HZ = 20.0


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


def small(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def swings(time_s: float) -> Array:
    """T_base_tcp of a hand that swings about all axes, a metre a second at most."""
    turn = 0.6 * np.sin(np.array([1.1, 0.7, 1.3]) * time_s)
    return pose(rotvec_to_matrix(turn), np.array([0.4, 0.0, 0.3]) + 0.2 * np.sin(np.array([0.9, 1.7, 1.2]) * time_s))


def swinging(folder: Path, *, start_s: float = 500.0, episode: int = 0, codec: Codec = Codec.LOSSLESS) -> Path:
    way = [(start_s + number / RATE_HZ, swings(start_s + number / RATE_HZ)) for number in range(60)]
    frames = [("wrist", start_s - 0.02 + number / 15.0, small(number)) for number in range(44)]
    frames += [("front", start_s + 0.01 + number / 10.0, small(100 + number)) for number in range(20)]
    return write_drive(folder, way, frames, size=SIZE, cameras=("wrist", "front"), codec=codec, episode=episode)


def test_in_motion_each_picture_has_where_the_hand_was_when_it_was_taken(scripts: Scripts, tmp_path: Path) -> None:
    swinging(tmp_path / "run")
    done = scripts(NAME, "pictures", tmp_path / "run", "--out", tmp_path / "shots", "--moving")
    assert done.code == cli.OK, done
    # the first picture of the wrist is from before the first state
    assert "63 shots; wrist 43 pictures, front 20 pictures" in done.out
    arm, robot = read_pose_file(tmp_path / "shots" / "arm.csv"), read_pose_file(tmp_path / "shots" / "robot.csv")
    np.testing.assert_allclose(robot.t_s, np.arange(60) / RATE_HZ, atol=1e-6)
    np.testing.assert_allclose(robot.position_m, [swings(500.0 + t)[:3, 3] for t in robot.t_s], atol=1e-8)
    away = np.linalg.norm(arm.position_m - [swings(500.0 + t)[:3, 3] for t in arm.t_s], axis=1)
    # on a line between ticks it would be 0.2 mm
    assert away[2:-2].max() < 1e-5
    rows = set(arm.t_s.tolist())
    for camera, first in (("wrist", 0), ("front", 100)):
        for path in (tmp_path / "shots" / camera).iterdir():
            assert float(path.stem) in rows
            shift_s, rate_hz = (-0.02, 15.0) if camera == "wrist" else (0.01, 10.0)
            number = round((float(path.stem) - shift_s) * rate_hz)
            read = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(read, small(first + number))


def test_drives_follow_each_other_and_every_thins_them_out(scripts: Scripts, tmp_path: Path) -> None:
    run = tmp_path / "run"
    swinging(run, start_s=9000.0)
    swinging(run, start_s=20.0, episode=1)  # after the machine was started again
    words = ("--moving", "--every", "0.5", "--camera", "front", "--json", tmp_path / "out.json")
    done = scripts(NAME, "pictures", run, "--out", tmp_path / "shots", *words)
    assert done.code == cli.OK, done
    assert "8 shots; front 8 pictures" in done.out
    robot = read_pose_file(tmp_path / "shots" / "robot.csv")
    assert len(robot) == 120
    assert np.diff(robot.t_s).max() == pytest.approx(10.0)
    assert not (tmp_path / "shots" / "wrist").exists()


def test_at_rest_there_is_a_shot_for_each_rest_and_the_hand_eye_is_found(scripts: Scripts, tmp_path: Path) -> None:
    way, frames, now_s = [], [], 50.0
    for number, T in enumerate(hand_poses(6, seed=2)):
        picture = seen_from_hand(T, number)
        for tick in range(24):
            rests = tick >= 6
            T_now = T if rests else pose(np.eye(3), np.array([0.01 * tick + number, 0.0, 0.0])) @ T
            way.append((now_s, T_now))
            if tick % 4 == 0:
                frames.append(("wrist", now_s - 0.013, picture if rests else WALL))
            now_s += 1.0 / RATE_HZ
    episode = write_drive(tmp_path, way, frames, size=WALL.shape[:2])
    (tmp_path / "board.json").write_text(BOARD.model_dump_json())
    shots = tmp_path / "shots"
    done = scripts(NAME, "pictures", episode, "--out", shots)
    assert "6 shots; wrist 6 pictures" in done.out
    words = ("--board", tmp_path / "board.json", "--intrinsics", write_lens(tmp_path / "lens.json"))
    fit = scripts(
        *(NAME, "hand-eye", "--robot-poses", shots / "arm.csv", "--pictures", shots / "wrist", *words),
        *("--out", tmp_path / "wrist.json", "--force"),
    )
    assert fit.code == cli.OK, fit
    T = np.array(read_result(tmp_path / "wrist.json", HandEyeResult)[0].T_hand_camera)
    assert np.linalg.norm(T[:3, 3] - T_HAND_CAMERA[:3, 3]) < 2e-3
    assert np.degrees(rotation_angle(T[:3, :3], T_HAND_CAMERA[:3, :3])) < 0.3


def test_jpeg_is_taken_and_said(scripts: Scripts, tmp_path: Path) -> None:
    path = swinging(tmp_path / "run", codec=Codec.JPEG)
    done = scripts(NAME, "pictures", path, "--out", tmp_path / "shots", "--moving", "--camera", "wrist")
    assert "note: wrist was recorded as JPEG" in done.out


def test_a_drive_without_a_rest_or_a_folder_that_is_there_leaves_nothing(scripts: Scripts, tmp_path: Path) -> None:
    path, out = swinging(tmp_path / "run"), tmp_path / "shots"
    line = scripts.refused(NAME, "pictures", path, "--out", out)
    assert "the hand never rests for half a second in it; add --moving" in line
    assert not list(tmp_path.glob("*shots*"))
    out.mkdir()
    (out / "mine.txt").write_text("")
    assert "is there already; name a new folder" in scripts.refused(NAME, "pictures", path, "--out", out, "--moving")
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


def test_what_holds_no_pictures_says_how_to_switch_them_on(scripts: Scripts, tmp_path: Path) -> None:
    bare = write_drive(tmp_path / "bare", [(0.0, np.eye(4)), (0.05, np.eye(4))], [], size=SIZE, cameras=())
    out = ("--out", tmp_path / "shots")
    line = scripts.refused(NAME, "pictures", bare, *out)
    assert "holds no full-size pictures; record again in real time with --camera.front.stream lossless" in line
    (tmp_path / "empty").mkdir()
    assert "holds no episode" in scripts.refused(NAME, "pictures", tmp_path / "empty", *out)
    assert "no such folder" in scripts.refused(NAME, "pictures", tmp_path / "nothing", *out)
    path = swinging(tmp_path / "run")
    line = scripts.refused(NAME, "pictures", path, *out, "--moving", "--camera", "wrst")
    assert "no full-size pictures of camera 'wrst'; it has those of wrist, front" in line
    assert "--every: got '0'" in scripts.refused(NAME, "pictures", path, *out, "--every", "0")

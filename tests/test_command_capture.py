"""`calibrate_rig.py capture` through the script: on videos in their real processes, and on a rig that is rehearsed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration import command_capture
from calibration.command_capture import CaptureCommand
from calibration.hand_eye_result import HandEyeResult
from calibration.intrinsics_result import IntrinsicsResult
from calibration.result import read_result
from robot.errors import HardwareError
from robot.geometry import rotation_angle
from teleop import cli
from tests.calibration_scenes import BOARD, NARROW
from tests.known_lens import write_lens
from tests.playback_station import held_views, playback_station
from tests.rehearsed_rig import T_HAND_CAMERA, WALL, RehearsedRig, Scene, hand_poses, seen_from_hand
from tests.scripts import STATION, Scripts

NAME = "calibrate_rig"


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.json"
    path.write_text(BOARD.model_dump_json())
    return path


def rehearse(scripts: Scripts, monkeypatch: pytest.MonkeyPatch, scenes: Sequence[Scene]) -> RehearsedRig:
    """Have the script watch scenes in place of a station's parts."""
    import calibrate_rig

    rig = RehearsedRig(scenes)

    def open_rig(station: Any, *, cameras: Sequence[str], arm: bool) -> RehearsedRig:
        return rig

    monkeypatch.setitem(calibrate_rig.COMMANDS, "capture", CaptureCommand(open_rig))
    return rig


def test_a_lens_is_calibrated_from_what_a_stations_camera_showed(scripts: Scripts, tmp_path: Path) -> None:
    station = playback_station(tmp_path, {"front": held_views(7), "side": [WALL] * 63})
    words = ("--board", tmp_path / "board.json", "--no-arm")
    done = scripts(NAME, "capture", station, "--out", tmp_path / "shots", "--count", "7", *words)
    assert done.code == cli.OK, done
    assert "front: 7 pictures with the board" in done.out
    assert "side: 0 pictures with the board" in done.out
    words = ("--board", tmp_path / "board.json", "--lens", "brown")
    fit = scripts(NAME, "intrinsics", tmp_path / "shots" / "front", "--out", tmp_path / "front.json", *words)
    assert fit.code == cli.OK, fit
    assert "7 of 7 pictures are of use" in fit.out
    result, _ = read_result(tmp_path / "front.json", IntrinsicsResult)
    assert result.camera.fx == pytest.approx(NARROW.fx, abs=3.0 * result.half_widths_95["fx"])
    assert result.held_out.rms_px < 0.3


def test_hand_and_eye_are_calibrated_from_what_was_captured(
    scripts: Scripts, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = hand_poses(6, seed=2)
    scenes = [
        part
        for number, T in enumerate(poses)
        for part in (Scene(pictures={"wrist": seen_from_hand(T, number)}, T_base_hand=T, for_s=0.8), Scene(for_s=0.2))
    ]
    rig = rehearse(scripts, monkeypatch, scenes)
    shots = tmp_path / "shots"
    done = scripts(
        NAME, "capture", STATION, "--out", shots, "--board", board, "--count", "6", "--json", shots / "c.json"
    )
    assert done.code == cli.OK, done
    assert rig.opened == 0
    assert json.loads((shots / "c.json").read_text())["cameras"] == {"wrist": 6}
    lens = write_lens(tmp_path / "lens.json")
    words = ("--robot-poses", shots / "arm.csv", "--pictures", shots / "wrist", "--board", board, "--intrinsics", lens)
    fit = scripts(NAME, "hand-eye", *words, "--out", tmp_path / "wrist.json")
    assert fit.code == cli.OK, fit
    result, _ = read_result(tmp_path / "wrist.json", HandEyeResult)
    T = np.array(result.T_hand_camera)
    assert np.linalg.norm(T[:3, 3] - T_HAND_CAMERA[:3, 3]) < 1e-3
    assert np.degrees(rotation_angle(T[:3, :3], T_HAND_CAMERA[:3, :3])) < 0.2


def test_where_nobody_shows_the_board_it_ends_with_1_and_says_why(
    scripts: Scripts, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rehearse(scripts, monkeypatch, [Scene(for_s=0.4)])
    look = rig.look

    def ended() -> Any:
        try:
            return look()
        except StopIteration:
            raise HardwareError("servo ended with status 1; look at the arm") from None

    monkeypatch.setattr(rig, "look", ended)
    done = scripts(NAME, "capture", STATION, "--out", tmp_path / "shots", "--board", board)
    assert done.code == cli.FAILED_CHECK
    assert "no shot was taken (wrist: shows no markers of the board)" in done.out
    assert done.errors == ["capture ended: servo ended with status 1; look at the arm"]


def test_without_a_terminal_it_ends_two_minutes_after_the_last_shot(
    scripts: Scripts, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (T,) = hand_poses(1, seed=2)
    shown = Scene(pictures={"wrist": seen_from_hand(T, 0)}, T_base_hand=T, for_s=0.8)
    rehearse(scripts, monkeypatch, [Scene(for_s=1.0), shown, Scene(for_s=140.0)])
    done = scripts(NAME, "capture", STATION, "--out", tmp_path / "shots", "--board", board)
    assert done.code == cli.FAILED_CHECK
    assert "1 shots, 1 of them new" in done.out
    assert len(done.errors) == 1, done.errors
    assert done.errors[0].startswith("capture ended: no new shot for 120 s (waits for a camera to see the board), and ")


def test_enter_while_the_arm_says_nothing_names_the_arm(
    scripts: Scripts, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (T,) = hand_poses(1, seed=2)
    seen = {"wrist": seen_from_hand(T, 0)}
    rehearse(scripts, monkeypatch, [Scene(pictures=seen, T_base_hand=None, for_s=2.0)])
    shown: list[str] = []

    class Keyboard:
        """A person who presses Enter once and q later."""

        interactive = True

        def __init__(self) -> None:
            self._keys = iter(["", "", "\n", "", "q"])

        def __enter__(self) -> Keyboard:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def keys(self) -> str:
            return next(self._keys)

        def say(self, line: str, *, ring: bool = False) -> None:
            pass

        def draw(self, lines: Sequence[str], line: str) -> None:
            shown.extend(lines)

    monkeypatch.setattr(command_capture, "Terminal", Keyboard)
    done = scripts(NAME, "capture", STATION, "--out", tmp_path / "shots", "--board", board)
    assert done.code == cli.FAILED_CHECK
    said = [line for line in shown if "nothing was taken" in line]
    assert said
    assert "the arm: servo: arm state is 900 ms old" in said[0]


def test_a_full_disk_is_said_before_it_is_full(
    scripts: Scripts, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse(scripts, monkeypatch, [])
    monkeypatch.setattr(command_capture.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5e6}))
    line = scripts.refused(NAME, "capture", STATION, "--out", tmp_path / "shots", "--board", board)
    assert "5 MB free, 30 shots take up to 28 MB; make room" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--board", "no.json"], "board no.json: no such file; make one with launch/calibrate_rig.py board"),
        (["--camera", "frnt"], "has no such camera; did you mean 'front'?"),
        (["--count", "0"], "argument --count: got '0' (allowed 1 to 500"),
        (["--arm"], "unknown option --arm"),
        (["--loop.rate_hx", "5"], "unknown key 'loop.rate_hx'"),
    ],
)
def test_wrong_words_are_one_line(scripts: Scripts, tmp_path: Path, board: Path, words: list[str], said: str) -> None:
    given = ["--out", str(tmp_path / "shots")] + (["--board", str(board)] if "--board" not in words else [])
    assert said in scripts.refused(NAME, "capture", STATION, *given, *words)

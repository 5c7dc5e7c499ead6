"""`calibrate_rig.py hand-eye` as a person runs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.hand_eye_rigs import RIGS, inverses, moving, standing, transform, write_poses
from calibration.board_rendering import BoardRenderer
from calibration.hand_eye_result import HandEyeResult
from calibration.result import content_hash, read_result
from robot.errors import BadInputError
from tests.calibration_scenes import BOARD, MIDDLE, NARROW
from tests.scripts import Scripts

DATA = Path(__file__).resolve().parent / "data"
REAL = ["--robot-poses", DATA / "hand_eye_robot.csv", "--target-poses", DATA / "hand_eye_target.csv"]
WRIST, _, BESIDE, _ = RIGS


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture
def stills(tmp_path: Path) -> list[str | Path]:
    take = standing(WRIST, np.random.default_rng(0))
    robot = write_poses(tmp_path / "robot.csv", take.t_robot_s, take.T_base_hand, header=True)
    target = write_poses(tmp_path / "target.csv", take.t_target_s, take.T_target_camera)
    return ["--robot-poses", robot, "--target-poses", target]


def test_real_recording_reaches_what_a_right_offset_allows(scripts: Scripts, tmp_path: Path) -> None:
    out = tmp_path / "wrist.json"
    done = scripts("calibrate_rig", "hand-eye", *REAL, "--camera", "wrist", "--out", out, "--json", tmp_path / "j.json")
    assert done.code == 0, done.errors
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    result, data = read_result(out, HandEyeResult)
    assert data == out.read_bytes()
    assert json.loads((tmp_path / "j.json").read_text()) == json.loads(data)
    assert result.translation_mm.median <= 2.9
    assert result.rotation_deg.median <= 0.42
    assert result.inliers > 0.88 * result.sightings
    assert -0.019 < result.time_offset_s < -0.014
    assert result.intervals_95.time_offset_s is not None
    low, high = result.intervals_95.time_offset_s
    assert low < result.time_offset_s < high < low + 0.01
    assert (result.camera, result.mount) == ("wrist", "tcp")
    assert result.T_mount_camera[:3, 3] == pytest.approx([0.0007, -0.0137, 0.0047], abs=0.001)


def test_camera_beside_the_arm_has_its_own_words(scripts: Scripts, tmp_path: Path) -> None:
    take = moving(BESIDE, np.random.default_rng(1), seconds=12.0, offset_s=0.9)
    robot = write_poses(tmp_path / "robot.csv", take.t_robot_s, take.T_base_hand)
    target = write_poses(tmp_path / "target.csv", take.t_target_s, take.T_target_camera)
    words = ["--robot-poses", robot, "--target-poses", target, "--eye-to-hand", "--out", tmp_path / "c.json"]
    assert scripts("calibrate_rig", "hand-eye", *words).code == 0
    result, _ = read_result(tmp_path / "c.json", HandEyeResult)
    assert (result.setup, result.mount, result.T_hand_camera) == ("eye-to-hand", "base", None)
    np.testing.assert_allclose(result.T_mount_camera, take.X, atol=2e-3)
    np.testing.assert_allclose(np.array(result.T_hand_target), take.Y, atol=2e-3)


def test_refused_result_leaves_no_file_unless_forced(scripts: Scripts, tmp_path: Path) -> None:
    take = standing(WRIST, np.random.default_rng(2), noise_px=6.0)
    words = [
        *("--robot-poses", write_poses(tmp_path / "robot.csv", take.t_robot_s, take.T_base_hand)),
        *("--target-poses", write_poses(tmp_path / "target.csv", take.t_target_s, take.T_target_camera)),
        *("--out", tmp_path / "out" / "c.json", "--json", tmp_path / "out" / "j.json"),
    ]
    done = scripts("calibrate_rig", "hand-eye", *words)
    assert done.code == 1
    assert any(line.startswith("FAILED: held-out rotation error") for line in done.errors)
    assert not (tmp_path / "out").exists()
    assert scripts("calibrate_rig", "hand-eye", *words, "--picture", tmp_path / "why.png").code == 1
    assert (tmp_path / "why.png").is_file()
    assert not (tmp_path / "out").exists()
    assert scripts("calibrate_rig", "hand-eye", *words, "--force").code == 0
    result, _ = read_result(tmp_path / "out" / "c.json", HandEyeResult)
    assert result.forced
    assert any("held-out rotation error" in warning for warning in result.warnings)


def test_degenerate_motion_is_one_line_and_no_bad_input(scripts: Scripts, tmp_path: Path) -> None:
    take = standing(dataclasses.replace(WRIST, tilt_rad=0.0), np.random.default_rng(3))
    robot = write_poses(tmp_path / "robot.csv", take.t_robot_s, take.T_base_hand)
    target = write_poses(tmp_path / "target.csv", take.t_target_s, take.T_target_camera)
    words = ["--robot-poses", robot, "--target-poses", target, "--force", "--out", tmp_path / "c.json"]
    done = scripts("calibrate_rig", "hand-eye", *words)
    assert done.code == 1
    assert len(done.errors) == 1
    assert "one rotation axis" in done.errors[0]
    assert not (tmp_path / "c.json").exists()


def test_pictures_of_the_board_do_in_place_of_poses(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "board.json").write_text(BOARD.model_dump_json())
    lens = tmp_path / "lens.json"
    lens.write_text(json.dumps(_lens_document()))
    rng, eye = np.random.default_rng(4), BoardRenderer(BOARD, NARROW, samples=2)
    X, Y = WRIST.T_mount_camera, transform((3.0, 178.0, 8.0), (0.5, -0.1, 0.02))
    rig = dataclasses.replace(WRIST, squares=(2, 2), square_m=float(2.0 * MIDDLE[1]), distance_m=(0.3, 0.4))
    take = standing(rig, rng, poses=14)
    middle = rig.corners().mean(axis=0) - MIDDLE
    T = inverses(Y) @ take.T_base_hand @ X
    T[:, :3, 3] -= middle  # the camera looks at the middle of the board that is drawn
    for number, T_target_camera in enumerate(T):
        picture = eye.render(inverses(T_target_camera), random=rng)
        cv2.imwrite(str(tmp_path / "shots" / f"{number}.png"), picture)
    robot = write_poses(tmp_path / "arm.csv", take.t_robot_s, Y @ T @ inverses(X))
    words = ["--robot-poses", robot, "--pictures", tmp_path / "shots", "--board", tmp_path / "board.json"]
    out = tmp_path / "wrist.json"
    done = scripts("calibrate_rig", "hand-eye", *words, "--intrinsics", lens, "--out", out)
    assert done.code == 0, done
    result, _ = read_result(out, HandEyeResult)
    assert np.linalg.norm(result.T_mount_camera[:3, 3] - X[:3, 3]) < 1e-3
    assert result.inputs.keys() == {"robot_poses", "board", "intrinsics", "pictures"}
    assert "--intrinsics: missing" in scripts.refused("calibrate_rig", "hand-eye", *words)
    (tmp_path / "shots" / "0.png").rename(tmp_path / "shots" / "first.png")
    assert "is named by no number" in scripts.refused("calibrate_rig", "hand-eye", *words, "--intrinsics", lens)


def _lens_document() -> dict[str, object]:
    document: dict[str, object] = {
        "schema_version": 1,
        "kind": "intrinsics",
        "created_utc": "2026-11-20T10:00:00+00:00",
        "inputs": {},
        "camera": NARROW.model_dump(mode="json"),
        "half_widths_95": {},
        "covariance": np.zeros((len(NARROW.values), len(NARROW.values))).tolist(),
        "held_out": {"rms_px": 0.1, "median_px": 0.1, "p90_px": 0.2},
        "sigma_px": 0.1,
        "tried": {},
        "board": BOARD.model_dump(mode="json"),
        "advice": [],
    }
    return {**document, "content_sha256": content_hash(document)}


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda lines: [], "is empty; rows are t,x,y,z,qx,qy,qz,qw"),
        (lambda lines: [*lines[:3], "1,2,3", *lines[4:]], "line 4 has 3 values (allowed 8"),
        (lambda lines: [*lines[:3], lines[3].replace(",", ",x", 1), *lines[4:]], "is no number"),
        (lambda lines: ["t,x,y,z,qx,qy,qz", *lines], "line 1 names no column 'qw'"),
        (lambda lines: [",".join(["nan"] * 8)] * 30 + lines, "30 of 50 rows hold NaN"),
        (lambda lines: [lines[0].rsplit(",", 4)[0] + ",0,0,0,0", *lines[1:]], "the quaternion at t = 0.000000 is zero"),
        (lambda lines: ["1e18," + line.split(",", 1)[1] for line in lines], "is no time in seconds"),
        (lambda lines: lines[:1], "1 pose; a calibration needs many views"),
    ],
)
def test_bad_files_are_one_line(scripts: Scripts, stills: list[str | Path], damage: object, text: str) -> None:
    assert callable(damage)
    path = Path(stills[3])
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    assert text in scripts.refused("calibrate_rig", "hand-eye", *stills)


def test_missing_file_and_folder_as_target_are_one_line(scripts: Scripts, stills: list[str | Path]) -> None:
    robot = Path(stills[1])
    assert "is a folder" in scripts.refused("calibrate_rig", "hand-eye", *stills, "--out", robot.parent)
    robot.unlink()
    assert "cannot be read (No such file or directory)" in scripts.refused("calibrate_rig", "hand-eye", *stills)


def test_file_that_was_edited_or_is_another_is_refused(
    scripts: Scripts, stills: list[str | Path], tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    assert scripts("calibrate_rig", "hand-eye", *stills, "--out", out).code == 0
    whole = json.loads(out.read_text())
    for change, text in (
        ({"time_offset_s": 0.001}, "was changed after it was made"),
        ({"T_hand_camera": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "is no rigid transform"),
        ({"kind": "intrinsics"}, "key 'kind'"),
        ({"extra": 1}, "key 'extra'"),
    ):
        out.write_text(json.dumps({**whole, **change}))
        with pytest.raises(BadInputError, match=text):
            read_result(out, HandEyeResult)
    out.write_text("no json")
    with pytest.raises(BadInputError, match="is no JSON"):
        read_result(out, HandEyeResult)

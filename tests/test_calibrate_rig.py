"""The subcommands of calibrate_rig.py, through the script, on pictures of which the truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calibration import picture_views
from calibration.board import BoardDetector, BoardView
from calibration.board_rendering import BoardRenderer
from calibration.extrinsics import adjust
from calibration.extrinsics_result import ExtrinsicsResult
from calibration.intrinsics_result import IntrinsicsResult
from calibration.picture_views import ViewsFile, look, picture_files, read_picture
from calibration.rehearsal import handheld
from calibration.result import read_result, sealed, write_result
from calibration.sharpness import blurred, edge_width_px
from robot.geometry import inverse_pose, pose, rotvec_to_matrix
from teleop import cli
from tests.calibration_scenes import BOARD, NARROW, facing
from tests.rig_scenes import LENS, T_HAND_BOARD, scene
from tests.scripts import Scripts

NAME = "calibrate_rig"


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of the board, and the board's file beside it."""
    folder = tmp_path_factory.mktemp("lens") / "front"
    folder.mkdir()
    random, eye = np.random.default_rng(5), BoardRenderer(BOARD, NARROW, samples=2)
    for number in range(10):
        T = handheld(NARROW, BOARD, random, tilt_rad=0.8)
        cv2.imwrite(str(folder / f"{number:02d}.png"), eye.render(T, random=random))
    (folder.parent / "board.json").write_text(BOARD.model_dump_json())
    return folder


def intrinsics(scripts: Scripts, pictures: Path, out: Path, *more: str) -> str:
    board = pictures.parent / "board.json"
    done = scripts(NAME, "intrinsics", pictures, "--board", board, "--out", out, "--lens", "brown", *more)
    assert done.code == cli.OK, done
    return done.out


def test_a_board_and_its_description_are_made(scripts: Scripts, tmp_path: Path) -> None:
    done = scripts(NAME, "board", "--out", tmp_path / "board.pdf", "--json", tmp_path / "out.json")
    assert done.code == cli.OK
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")
    board = json.loads((tmp_path / "board.json").read_text())
    assert board["square_m"] == 0.03
    assert json.loads((tmp_path / "out.json").read_text())["board"] == board
    assert "180 mm across" in done.out


def test_a_ruler_that_measures_less_corrects_the_description(scripts: Scripts, tmp_path: Path) -> None:
    done = scripts(NAME, "board", "--out", tmp_path / "board.pdf", "--measured-mm", "178.2")
    assert done.code == cli.OK
    board = json.loads((tmp_path / "board.json").read_text())
    assert board["square_m"] == pytest.approx(0.0297)
    assert "allowed 144 to 225" in scripts.refused(
        NAME, "board", "--out", tmp_path / "board.pdf", "--measured-mm", "17.8"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--out", "board.png"], "must end in .pdf"),
        (["--out", "board.pdf", "--columns", "2"], "--columns 2: allowed 3 to 40"),
        (["--out", "board.pdf", "--square-mm", "60"], "has room for"),
        (["--out", "board.pdf", "--marker-mm", "29"], "markers of 29 mm on squares of 30 mm"),
        (["--out", "board.pdf", "--square-mm", "nan"], "square_m"),
        (["--out", "board.pdf", "--page", "b5"], "--page b5: allowed a4, a3"),
    ],
)
def test_a_board_that_cannot_be_is_one_line(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert text in scripts.refused(NAME, "board", *words)


def test_a_lens_is_calibrated_from_a_folder(scripts: Scripts, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "front.json"
    assert "10 of 10 pictures are of use" in intrinsics(scripts, pictures, out)
    result, _ = read_result(out, IntrinsicsResult)
    off = np.abs(result.camera.values - NARROW.values) / list(result.half_widths_95.values())
    assert off.max() < 2.5
    assert (off <= 1.0).mean() > 0.6
    assert result.held_out.rms_px < 0.3
    assert sorted(result.inputs) == [f"{number:02d}.png" for number in range(10)]
    session = tmp_path / "front_session"
    assert {path.name for path in session.iterdir()} == {"views.jsonl", "residuals.png", "coverage.png"}


def test_going_on_after_a_crash_looks_only_at_what_is_not_known(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = picture_files(pictures), tmp_path / "session" / "views.jsonl"
    first = look(files[:6], BOARD, ViewsFile(path), lambda one: None)
    # killed in the middle of a line
    path.write_text(path.read_text()[:-40])
    read: list[Path] = []
    monkeypatch.setattr(picture_views, "read_picture", lambda file: read.append(file) or read_picture(file))
    for _ in range(2):
        again = look(files[:8], BOARD, ViewsFile(path), lambda one: None)
    assert read == [files[5], files[6], files[7]]
    for one, other in zip(first, again, strict=False):
        assert one.view is not None
        assert other.view is not None
        assert np.array_equal(one.view.pixels, other.view.pixels)


def test_another_board_is_looked_for_anew(pictures: Path, tmp_path: Path) -> None:
    files, path = picture_files(pictures)[:1], tmp_path / "views.jsonl"
    assert look(files, BOARD, ViewsFile(path), lambda one: None)[0].view is not None
    other = BOARD.model_copy(update={"dictionary": "5X5_50"})
    assert look(files, other, ViewsFile(path), lambda one: None)[0].view is None


def test_pictures_of_no_use_are_counted_by_reason(scripts: Scripts, pictures: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in pictures.iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "again.png").write_bytes((mixed / "00.png").read_bytes())
    (mixed / "broken.png").write_bytes(b"no picture")
    (mixed / "empty.jpg").write_bytes(b"")
    cv2.imwrite(str(mixed / "wall.png"), np.full((480, 640), 90, dtype=np.uint8))
    (tmp_path / "board.json").write_text(BOARD.model_dump_json())
    said = intrinsics(scripts, mixed, tmp_path / "front.json")
    assert "10 of 14 pictures are of use" in said
    assert "2 cannot be read as a picture" in said
    assert "1 shows no markers of the board" in said
    assert "1 shows the board where another does" in said


def test_pictures_of_another_size_are_refused(scripts: Scripts, pictures: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in sorted(pictures.iterdir())[:3]:
        (mixed / path.name).write_bytes(path.read_bytes())
    small = cv2.resize(cv2.imread(str(pictures / "03.png"), cv2.IMREAD_GRAYSCALE), (960, 720))
    cv2.imwrite(str(mixed / "small.png"), small)
    board = pictures.parent / "board.json"
    line = scripts.refused(NAME, "intrinsics", mixed, "--board", board, "--out", tmp_path / "a.json")
    assert "pictures of different sizes, 3 of 640x480, 1 of 960x720 (small.png)" in line


def test_the_wrong_board_is_named(scripts: Scripts, pictures: Path, tmp_path: Path) -> None:
    other = BOARD.model_copy(update={"dictionary": "5X5_50"})
    (tmp_path / "other.json").write_text(other.model_dump_json())
    line = scripts.refused(
        NAME, "intrinsics", pictures, "--board", tmp_path / "other.json", "--out", tmp_path / "a.json"
    )
    assert "they show markers of 4X4_50, the board's file says 5X5_50" in line


def test_too_few_pictures_are_refused_with_a_drawing(scripts: Scripts, pictures: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    board = pictures.parent / "board.json"
    line = scripts.refused(NAME, "intrinsics", few, "--board", board, "--out", tmp_path / "a.json")
    assert "3 usable pictures, at least 6 are needed" in line
    assert (tmp_path / "a_session" / "coverage.png").exists()
    assert not (tmp_path / "a.json").exists()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated rig (two cameras, the arm holds the board), and later shots as it was and with `side` bumped."""
    folder = tmp_path_factory.mktemp("rig")
    truth = scene("hand", seed=4, shots=20)
    result = ExtrinsicsResult.of(adjust(truth.rig), {}, held=True)
    write_result(folder / "rig.json", result)
    (folder / "board.json").write_text(BOARD.model_dump_json())
    eyes = {camera.name: BoardRenderer(BOARD, camera.model, samples=2) for camera in truth.rig.cameras}
    bump = pose(rotvec_to_matrix(np.radians([0.0, 0.6, 0.0])), np.array([0.012, 0.0, 0.0]))
    both = [s for s in range(20) if sum(one.shot == s for one in truth.rig.sightings) == 2][:4]
    for name, moved in (("same", np.eye(4)), ("bumped", bump)):
        rows = []
        for shot in both:
            hand = truth.rig.T_base_hand[shot]
            assert hand is not None
            quat = Rotation.from_matrix(hand[:3, :3]).as_quat()
            rows.append(",".join(f"{value:.9f}" for value in (shot, *hand[:3, 3], *quat)))
            for number, camera in enumerate(truth.rig.cameras):
                if name == "bumped" and camera.name == "front":
                    continue
                T = truth.T_mount_camera[number] @ (moved if camera.name == "side" else np.eye(4))
                (folder / name / camera.name).mkdir(parents=True, exist_ok=True)
                picture = eyes[camera.name].render(inverse_pose(T) @ hand @ T_HAND_BOARD)
                cv2.imwrite(str(folder / name / camera.name / f"{shot}.png"), picture)
        (folder / name / "arm.csv").write_text("\n".join(rows) + "\n")
    return folder


def check(rig: Path, name: str, *more: str) -> list[str | Path]:
    shots = rig / name
    return ["check", rig / "rig.json", shots, "--board-on", "hand", "--arm-poses", shots / "arm.csv", *more]


def test_a_rig_that_nobody_touched_passes(scripts: Scripts, rig: Path, tmp_path: Path) -> None:
    done = scripts(NAME, *check(rig, "same", "--same-place", "--json"), tmp_path / "check.json")
    assert done.code == cli.OK, done
    assert "nothing has moved" in done.out
    cameras = json.loads((tmp_path / "check.json").read_text())["cameras"]
    assert set(cameras) == {"front", "side"}
    assert cameras["side"]["translation_mm"] < 3.0
    assert cameras["side"]["seen"][0].keys() == {"shot", "against", "translation_mm", "rotation_deg"}
    assert np.asarray(cv2.imread(str(rig / "same" / "session" / "drift.png"))).std() > 1.0


def test_a_bumped_camera_is_named_with_how_far_it_moved(scripts: Scripts, rig: Path) -> None:
    done = scripts(NAME, *check(rig, "bumped", "--same-place"))
    assert done.code == cli.FAILED_CHECK
    assert "DRIFT: camera 'side' is " in done.out
    assert "not looked at: front" in done.out


def test_a_camera_that_nothing_was_compared_with_is_not_said_to_be_where_it_was(
    scripts: Scripts, rig: Path, tmp_path: Path
) -> None:
    shots = tmp_path / "shots"
    for number, picture in enumerate(sorted((rig / "same" / "front").glob("*.png"))):
        for name in ("front", "side"):
            (shots / name).mkdir(parents=True, exist_ok=True)
            if name == "front" or number < 2:  # the side camera saw the board twice only
                (shots / name / picture.name).write_bytes((rig / "same" / name / picture.name).read_bytes())
    words = [rig / "rig.json", shots, "--board-on", "hand", "--arm-poses", rig / "same" / "arm.csv", "--same-place"]
    done = scripts(NAME, "check", *words)
    assert done.code == cli.FAILED_CHECK
    assert "NOT COMPARED: camera 'side' in 2 sightings only, 3 are needed" in done.out
    assert "nothing has moved" not in done.out


def test_a_picture_of_another_kind_is_refused_before_the_work(scripts: Scripts, rig: Path) -> None:
    line = scripts.refused(NAME, *check(rig, "same", "--picture", "drift.txt"))
    assert "--picture drift.txt: must end in .png" in line


def test_a_result_that_was_edited_is_refused(scripts: Scripts, rig: Path, tmp_path: Path) -> None:
    edited = json.loads((rig / "rig.json").read_text())
    edited["cameras"]["side"]["T_mount_camera"][0][3] += 0.01
    (tmp_path / "rig.json").write_text(json.dumps(edited))
    line = scripts.refused(NAME, "check", tmp_path / "rig.json", rig / "same", "--board-on", "free")
    assert "was changed after it was made" in line


def test_cameras_are_placed_by_the_script(scripts: Scripts, rig: Path, tmp_path: Path) -> None:
    lens = sealed(
        IntrinsicsResult,
        {
            "inputs": {},
            "camera": LENS.model_dump(),
            "half_widths_95": {},
            "covariance": np.diag([1.0, 1.0, 1.0, 1.0, *([1e-6] * 5)]).tolist(),
            "held_out": {"rms_px": 0.1, "median_px": 0.1, "p90_px": 0.1},
            "sigma_px": 0.1,
            "tried": {},
            "board": BOARD.model_dump(),
            "advice": (),
        },
    )
    write_result(tmp_path / "lens.json", lens)
    shots = rig / "same"
    words = [
        "extrinsics", shots, "--board", rig / "board.json", "--board-on", "hand", "--out", tmp_path / "rig.json",
        "--camera", f"front={tmp_path / 'lens.json'}",
    ]  # fmt: skip
    # four shots are too few, and the script says so with exit code 1 and no file
    done = scripts(NAME, *words, "--arm-poses", shots / "arm.csv")
    assert done.code == cli.FAILED_CHECK
    assert "take 5 shots or more" in done.errors[-1]
    assert not (tmp_path / "rig.json").exists()
    assert "named by no number" not in done.errors[-1]
    line = scripts.refused(NAME, *words, "--camera", f"front={tmp_path / 'lens.json'}")
    assert "camera 'front' is named twice" in line
    line = scripts.refused(NAME, *words, "--camera", f"top={tmp_path / 'lens.json'}")
    assert "put the pictures of camera 'top' there" in line


def test_a_delay_is_measured_from_two_files(scripts: Scripts, tmp_path: Path) -> None:
    t = np.arange(0.0, 20.0, 0.02)
    random = np.random.default_rng(0)
    phases = random.uniform(0.0, 6.0, 8)
    rates = random.uniform(1.0, 9.0, 8)

    def width(at: np.ndarray) -> np.ndarray:
        return np.sin(at[:, None] * rates + phases).sum(axis=1)

    for name, late in (("asked", 0.0), ("seen", 0.08)):
        rows = [f"{a:.3f},{b:.6f}" for a, b in zip(t, width(t - late), strict=True)]
        (tmp_path / f"{name}.csv").write_text("t,width_m\n" + "\n".join(rows) + "\n")
    out = tmp_path / "gripper.json"
    done = scripts(NAME, "latency", "gripper", tmp_path / "asked.csv", tmp_path / "seen.csv", "--out", out)
    assert done.code == cli.OK, done
    assert json.loads(out.read_text())["delay_s"] == pytest.approx(0.08, abs=0.002)
    assert out.with_suffix(".png").exists()
    (tmp_path / "seen.csv").write_text("t,width_m\n0,1\n0.1,x\n")
    line = scripts.refused(NAME, "latency", "gripper", tmp_path / "asked.csv", tmp_path / "seen.csv", "--out", out)
    assert "line 3 is not 2 finite numbers" in line


def test_blurred_pictures_are_left_out(pictures: Path) -> None:
    eye = BoardRenderer(BOARD, NARROW, samples=2)
    widths = []
    for blur_px in (0.6, 0.8, 2.6):
        picture = eye.render(facing(0.22, (0.2, 0.1, 0.0)), blur_px=blur_px)
        view = BoardDetector(BOARD).detect(picture)
        assert isinstance(view, BoardView)
        widths.append(edge_width_px(picture, BOARD, view))
    assert blurred(widths).tolist() == [False, False, True]
    assert blurred([None, None]).tolist() == [False, False]

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.pose_file import read_pose_file
from calibration.shots_folder import ShotsFolder
from robot.errors import BadInputError
from robot.geometry import pose, rotvec_to_matrix
from tests.calibration_scenes import BOARD

SIZES = {"front": (24, 32), "wrist": (24, 32)}
T = pose(rotvec_to_matrix(np.array([0.3, -1.0, 2.0])), np.array([0.4, -0.1, 0.3]))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def folder(path: Path, **changes: object) -> ShotsFolder:
    return ShotsFolder(path, **{"station": "rig", "board": BOARD, "sizes": SIZES} | changes)  # type: ignore[arg-type]


def test_pictures_come_back_to_the_bit_and_poses_by_their_names(tmp_path: Path) -> None:
    shots = folder(tmp_path / "new" / "shots")
    files = shots.save({"front": picture(0), "wrist": picture(1)}, T)
    assert files == [shots.path / "front" / "001.png", shots.path / "wrist" / "001.png"]
    read = cv2.cvtColor(cv2.imread(str(files[1])), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read, picture(1))
    shots.save({"wrist": picture(2)}, T @ T)
    poses = read_pose_file(shots.path / "arm.csv")
    assert poses.t_s.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(shots.poses, [T, T @ T], atol=1e-8)
    assert shots.numbers() == {1, 2}


def test_opening_it_again_goes_on_after_the_last_shot(tmp_path: Path) -> None:
    first = folder(tmp_path)
    first.save({"front": picture(0)}, T)
    first.save({"wrist": picture(1)}, T)
    again = folder(tmp_path)
    assert again.next == 3
    again.save({"front": picture(2)}, np.eye(4))
    assert [path.stem for path in again.pictures("front")] == ["001", "003"]
    assert read_pose_file(tmp_path / "arm.csv").t_s.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(folder(tmp_path).poses, [T, T, np.eye(4)], atol=1e-8)


@pytest.mark.parametrize("kills_at", range(1, 7))
def test_killed_at_any_moment_no_picture_has_another_shots_pose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills_at: int
) -> None:
    shots = folder(tmp_path)
    shots.save({"front": picture(0), "wrist": picture(1)}, T)
    steps = 0

    def step(name: str) -> None:
        real = getattr(os, name) if name == "fsync" else getattr(Path, name)

        def counted(*words: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps == kills_at:
                raise KeyboardInterrupt
            return real(*words, **more)

        monkeypatch.setattr(os if name == "fsync" else Path, name, counted)

    with monkeypatch.context() as monkeypatch:
        step("fsync")
        step("replace")
        try:
            shots.save({"front": picture(2), "wrist": picture(3)}, T @ T)
        except KeyboardInterrupt:
            assert steps == kills_at
    again = folder(tmp_path)
    again.save({"front": picture(4), "wrist": picture(5)}, np.eye(4))
    rows = dict(zip(read_pose_file(tmp_path / "arm.csv").t_s.tolist(), again.poses, strict=True))
    truth = {0: T, 1: T, 2: T @ T, 3: T @ T, 4: np.eye(4), 5: np.eye(4)}
    for name in SIZES:
        for path in again.pictures(name):
            read = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            seed = next(seed for seed in truth if np.array_equal(picture(seed), read))
            np.testing.assert_allclose(rows[float(path.stem)], truth[seed], atol=1e-8)
    assert not list(tmp_path.glob("*/.*.png"))


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = folder(tmp_path)
    shots.save({"front": picture(0)}, T)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInputError, match=r"No space left on device\); make room and start again"):
        shots.save({"front": picture(1)}, T)
    monkeypatch.undo()
    assert folder(tmp_path).numbers() == {1}
    assert [path.name for path in (tmp_path / "front").iterdir()] == ["001.png"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"station": "other"}, "its shots are of station 'rig', this is 'other'; name another folder"),
        ({"board": BOARD.model_copy(update={"square_m": 0.029})}, "its shots show a board of 6 x 8 squares of 30 mm"),
        ({"sizes": {"front": (48, 64)}}, "its pictures are 32x24, camera 'front' gives 64x48 now"),
    ],
)
def test_shots_of_another_rig_are_not_mixed_with_these(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    folder(tmp_path).save({"front": picture(0)}, T)
    with pytest.raises(BadInputError, match=said):
        folder(tmp_path, **changes)


@pytest.mark.parametrize(
    "about",
    ["[]", '{"station": "rig", "board": {}, "cameras": {}}', '{"station": "rig", "board": BOARD, "cameras": []}', "{"],
)
def test_a_description_that_is_none_is_one_line(tmp_path: Path, about: str) -> None:
    (tmp_path / "capture.json").write_text(about.replace("BOARD", BOARD.model_dump_json()))
    with pytest.raises(BadInputError, match=r"capture\.json: is not what a capture wrote; name another folder"):
        folder(tmp_path)


def test_more_cameras_may_join_later(tmp_path: Path) -> None:
    folder(tmp_path, sizes={"front": (24, 32)}).save({"front": picture(0)}, T)
    later = folder(tmp_path, sizes={"side": (24, 32)})
    assert later.save({"side": picture(1)}, T)[0].stem == "002"
    with pytest.raises(BadInputError, match="gives 64x48 now"):
        folder(tmp_path, sizes={"front": (48, 64)})


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shots").write_text("")
    with pytest.raises(BadInputError, match=r"cannot be written .*; name a folder"):
        folder(tmp_path / "shots")

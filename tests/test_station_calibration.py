from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from perception.camera_model import CameraModel
from perception.config import SimulatedCameraConfig
from perception.simulated_camera import nominal_pose
from policy.episode_reader import latest_revisions
from policy.manifest import CameraCalibration
from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.geometry import pose, rotation_matrix
from teleop.nominal_calibration import nominal_calibration
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import LoadedStation
from teleop.station_calibration import camera_lenses, camera_poses, moved_since_training, station_calibrations
from tests.calibration_files import Array, write_hand_eye, write_lens, write_rig
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def nominal(bundle: Path, name: str = "front") -> Array:
    camera = next(camera for camera in tiny_station(bundle).station.camera if camera.name == name)
    assert isinstance(camera, SimulatedCameraConfig)
    return nominal_pose(camera)


def size(bundle: Path) -> tuple[int, int]:
    camera = tiny_station(bundle).station.camera[0]
    assert isinstance(camera, SimulatedCameraConfig)
    return camera.height, camera.width


def pointing(bundle: Path, path: Path, *more: tuple[str, str]) -> LoadedStation:
    return tiny_station(bundle, ("calibration.files.front", f'"{path}"'), *more)


def moved(loaded: LoadedStation, trained: Mapping[str, CameraCalibration]) -> list[str]:
    return moved_since_training(loaded, camera_poses(loaded, station_calibrations(loaded)), trained)


def test_a_station_is_where_it_was_trained_until_a_calibration_says_otherwise(bundle: Path, tmp_path: Path) -> None:
    ours = tiny_station(bundle)
    trained = nominal_calibration(ours)
    assert moved(ours, trained) == []
    shift = pose(rotation_matrix(0.0, 0.0, np.radians(0.4)), np.array([0.003, 0.0, 0.0]))
    write_rig(tmp_path / "rig.json", {"front": ("base", nominal(bundle) @ shift)}, size=size(bundle))
    there = pointing(bundle, tmp_path / "rig.json")
    assert moved(there, trained) == []
    tight = pointing(bundle, tmp_path / "rig.json", ("calibration.same_mm", "2.0"))
    (line,) = moved(tight, trained)
    assert "camera 'front': the policy was trained with another calibration" in line
    assert "3.0 mm and 0.40 degrees apart (limits 2 mm, 0.5 degrees)" in line
    (line,) = moved(pointing(bundle, tmp_path / "rig.json", ("calibration.same_deg", "0.3")), trained)
    assert "limits 5 mm, 0.3 degrees" in line


def test_a_camera_on_another_mount_is_told(bundle: Path, tmp_path: Path) -> None:
    write_rig(tmp_path / "rig.json", {"front": ("hand", nominal(bundle))}, size=size(bundle))
    (line,) = moved(pointing(bundle, tmp_path / "rig.json"), nominal_calibration(tiny_station(bundle)))
    assert "fixed to the base and now is to the tcp" in line


def test_a_new_bundle_keeps_the_measured_calibration(bundle: Path, tmp_path: Path) -> None:
    T = nominal(bundle) @ pose(np.eye(3), np.array([0.0, 0.01, 0.0]))
    write_rig(tmp_path / "rig.json", {"front": ("base", T)}, size=size(bundle))
    kept = nominal_calibration(pointing(bundle, tmp_path / "rig.json"))["front"]
    np.testing.assert_allclose(np.array(kept.T_mount_camera).reshape(4, 4), T)
    assert moved(pointing(bundle, tmp_path / "rig.json"), {"front": kept}) == []


def test_a_calibration_of_others_is_refused(bundle: Path, tmp_path: Path) -> None:
    write_rig(tmp_path / "side.json", {"side": ("base", np.eye(4))}, size=size(bundle))
    with pytest.raises(BadInputError, match=r"calibration.files.front: .* has cameras \['side'\], not 'front'"):
        station_calibrations(pointing(bundle, tmp_path / "side.json"))
    write_rig(tmp_path / "large.json", {"front": ("base", np.eye(4))}, size=(480, 640))
    with pytest.raises(BadInputError, match="was made from pictures of 640x480, the camera gives"):
        station_calibrations(pointing(bundle, tmp_path / "large.json"))
    with pytest.raises(BadInputError, match=r"calibration\.files names camera 'top'"):
        tiny_station(bundle, ("calibration.files.top", '"rig.json"'))


def test_a_place_and_a_lens_of_two_files_are_taken_together(bundle: Path, tmp_path: Path) -> None:
    height, width = size(bundle)
    lens = CameraModel(
        kind="fisheye", width=width, height=height, fx=20.0, fy=21.0, cx=19.0, cy=16.0, distortion=(0.1, 0.0, 0.0, 0.0)
    )
    T = nominal(bundle, "wrist") @ pose(np.eye(3), np.array([0.0, 0.01, 0.0]))
    hand, alone = write_hand_eye(tmp_path / "hand.json", T), write_lens(tmp_path / "lens.json", lens)
    both = f"['{tmp_path / 'hand.json'}', '{tmp_path / 'lens.json'}']"
    loaded = tiny_station(bundle, ("calibration.files.wrist", both), ("episode.timeout_s", "0.5"))
    found = station_calibrations(loaded)
    assert camera_lenses(loaded, found)["wrist"] == lens
    wrist = camera_poses(loaded, found)["wrist"]
    assert (wrist.mount, wrist.T_mount_camera.tolist()) == ("tcp", T.tolist())
    kept = nominal_calibration(loaded)["wrist"]
    assert (kept.mount, kept.fx) == ("tcp", 20.0)
    with Run(loaded, VirtualClock(), RunOptions(out=tmp_path / "run", operator="none")) as run:
        run.episode()
        run.finish()
        (episode,) = latest_revisions(run.folder.episodes)
        assert episode.header.calibrations == {"wrist.hand-eye": hand, "wrist.intrinsics": alone}
        assert run.folder.station(alone) == (tmp_path / "lens.json").read_bytes()


def test_two_files_that_say_the_same_are_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    write_rig(tmp_path / "rig.json", {"wrist": ("hand", np.eye(4))}, size=size(bundle))
    height, width = size(bundle)
    lens = CameraModel(kind="pinhole", width=width, height=height, fx=20.0, fy=20.0, cx=19.5, cy=15.5)
    write_hand_eye(tmp_path / "hand.json", np.eye(4))
    write_lens(tmp_path / "lens.json", lens)
    for names, message in [
        (("rig", "hand"), r"rig.json and .*hand.json both say where it is; leave one of them out"),
        (("lens", "rig"), r"lens.json and .*rig.json both say its lens; leave one of them out"),
        (("lens", "lens"), r"are two of kind 'intrinsics'; leave one of them out"),
    ]:
        files = [str(tmp_path / f"{name}.json") for name in names]
        with pytest.raises(BadInputError, match=message):
            station_calibrations(tiny_station(bundle, ("calibration.files.wrist", str(files))))


def test_each_episode_names_the_calibration_and_the_run_keeps_it(bundle: Path, tmp_path: Path) -> None:
    sha256 = write_rig(tmp_path / "rig.json", {"front": ("base", nominal(bundle))}, size=size(bundle))
    loaded = pointing(bundle, tmp_path / "rig.json", ("episode.timeout_s", "0.5"))
    with Run(loaded, VirtualClock(), RunOptions(out=tmp_path / "run", operator="none")) as run:
        run.episode()
        run.finish()
        # the tiny bundle says of every camera that it was at the base's origin
        assert [line.split(":")[0] for line in run.moved] == ["camera 'front'", "camera 'wrist'"]
        (episode,) = latest_revisions(run.folder.episodes)
        assert episode.header.calibrations == {"front": sha256}
        assert run.folder.station(sha256) == (tmp_path / "rig.json").read_bytes()

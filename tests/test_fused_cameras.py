"""The fused view of whole stations: in the observation, before the policy, in the log, and in the replay of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.camera_model import CameraModel
from perception.config import SimulatedCameraConfig
from perception.observation import Verdict
from perception.simulated_camera import bump_pose, intrinsics_px, nominal_pose
from policy.bundle import load_bundle
from policy.episode_reader import read_episode
from policy.onnx_session import PolicyError
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.fused_cameras import fused_cameras
from teleop.replay import verify_run
from teleop.rig import Rig
from teleop.station import LoadedStation, Station
from tests.calibration_files import write_hand_eye, write_lens, write_rig
from tests.replay_run import changed, make_run
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

Array = NDArray[np.float64]
VOLUME = {"workspace_min_m": [0.2, -0.4, -0.012], "workspace_max_m": [0.8, 0.4, 0.5], "voxel_m": 0.01, "points": 128}
KEYS = [(f"fused_view.{key}", str(value)) for key, value in VOLUME.items()]
CLOUD = {"points": 128, "voxel_m": 0.01, "workspace_min_m": [0.2, -0.4, -0.012], "workspace_max_m": [0.8, 0.4, 0.5]}
NO_BUMP = [
    (f"camera.{name}.bump.{key}", "[0.0, 0.0, 0.0]")
    for name in ("front", "wrist")
    for key in ("translation_m", "rotation_deg")
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused")
    make_run(folder, None, *KEYS, point_cloud=CLOUD)
    return folder / "run"


def test_both_cameras_of_the_simulated_station_see_its_table_where_it_is(tmp_path: Path) -> None:
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle"), *KEYS, *NO_BUMP)
    with Rig(loaded, VirtualClock(100.0), seed=0) as rig:
        for _ in range(4):
            rig.clock.sleep_until(rig.clock.now_s() + 0.05)
            look = rig.synchroniser.observe(rig.clock.now_s(), rig.arm.state())
        cloud = look.cloud
        assert cloud is not None
        assert cloud.count > 128
        assert 0.0 < rig.clock.now_s() - cloud.captured_s < 0.2
        table = np.abs(cloud.points[:, 2]) < 1e-4
        assert table.mean() > 0.4
        assert cloud.points[:, 2].min() > -1e-4, "nothing lies below the table"


def test_a_run_with_a_policy_that_takes_the_cloud_is_logged_and_replays_exactly(recorded: Path) -> None:
    report = verify_run(recorded, jobs=0)
    assert (report.episodes, report.mismatches) == (3, 0)
    episode = read_episode(sorted((recorded / "episodes").glob("*.h5"))[0])
    columns = episode.arrays(["obs/point_cloud", "tick/cloud_count", "tick/cloud_s", "tick/verdict", "tick/start_s"])
    fresh = columns["tick/verdict"] == Verdict.FRESH
    assert fresh.sum() > 10
    assert (columns["tick/cloud_count"][fresh] > 0).all()
    assert np.isfinite(columns["obs/point_cloud"][fresh]).all()
    assert (columns["tick/start_s"] - columns["tick/cloud_s"][:, 0])[fresh].max() <= 0.3


@pytest.mark.parametrize(
    ("field", "value", "found"), [("obs/point_cloud", 0.9, "tick/features"), ("tick/cloud_s", 1.0, "tick/verdict")]
)
def test_a_changed_cloud_is_found(tmp_path: Path, field: str, value: float, found: str) -> None:
    paths = make_run(tmp_path, None, *KEYS, point_cloud=CLOUD)
    with changed(paths[0], reseal=True) as demo:
        row = int(np.flatnonzero(demo["tick/verdict"][()] == Verdict.FRESH)[-1])
        demo[field][row] = value
    report = verify_run(tmp_path / "run", jobs=0)
    assert found in report.by_field


def test_a_policy_that_takes_a_cloud_is_nothing_without_it(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path / "bundle", point_cloud=CLOUD), provider="cpu")
    bundle.warm_up(1)
    images = {name: np.zeros((32, 40, 3), np.uint8) for name in ("front", "wrist")}
    proprio, cloud = np.zeros(4, np.float32), np.ones((128, 6), np.float32)
    assert not np.array_equal(bundle.encode(images, proprio, cloud), bundle.encode(images, proprio, 0.0 * cloud))
    with pytest.raises(PolicyError, match="point_cloud"):
        bundle.encode(images, proprio)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], r"takes a point cloud, and station .* has no \[fused_view\]; add it"),
        (
            [*KEYS, ("fused_view.voxel_m", "0.02")],
            r"takes a point cloud of voxel_m 0.01, fused_view.voxel_m .* is 0.02",
        ),
        ([*KEYS, ("fused_view.points", "64")], r"takes a point cloud of points 128, fused_view.points .* is 64"),
    ],
)
def test_a_station_that_makes_another_cloud_than_the_bundles_is_refused(
    tmp_path: Path, keys: list[tuple[str, str]], message: str
) -> None:
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle", point_cloud=CLOUD), *keys)
    with pytest.raises(BadInputError, match=message):
        Rig(loaded, VirtualClock(100.0), seed=0).__enter__()


def seen_from(loaded: LoadedStation) -> Array:
    """Points of a cloud that the rig of a station makes while the arm moves, (N, 3)."""
    with Rig(loaded, VirtualClock(100.0), seed=0) as rig:
        for _ in range(4):
            rig.clock.sleep_until(rig.clock.now_s() + 0.05)
            look = rig.synchroniser.observe(rig.clock.now_s(), rig.arm.state())
        assert look.cloud is not None
        return look.cloud.points[:, :3].astype(np.float64)


@pytest.mark.parametrize("name", ["front", "wrist"])
def test_a_camera_that_was_bumped_sees_the_table_where_it_is_once_it_is_calibrated(tmp_path: Path, name: str) -> None:
    keys = [
        ("camera.wrist.target_m", "[0.2, 0.0, 0.5]"),  # beside the hand, down to the table
        ("camera.wrist.up", "[1.0, 0.0, 0.0]"),
        (f"camera.{name}.bump.translation_m", "[0.0, 0.0, 0.02]"),
        ("fused_view.cameras", f"['{name}']"),
        ("fused_view.workspace_min_m", "[-0.3, -0.8, -0.032]"),
        ("fused_view.workspace_max_m", "[1.2, 0.8, 0.4]"),  # below the hand, where the arm stands
    ]
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle"), *KEYS, *NO_BUMP, *keys)
    camera = next(camera for camera in loaded.station.camera if camera.name == name)
    assert isinstance(camera, SimulatedCameraConfig)
    T_mount_camera = nominal_pose(camera) @ bump_pose(camera)
    fx, fy, cx, cy = intrinsics_px(camera)
    lens = CameraModel(kind="pinhole", width=camera.width, height=camera.height, fx=fx, fy=fy, cx=cx, cy=cy)
    if name == "front":
        write_rig(tmp_path / "rig.json", {name: ("base", T_mount_camera)}, lens=lens)
        files = [str(tmp_path / "rig.json")]
    else:
        write_hand_eye(tmp_path / "hand.json", T_mount_camera)
        write_lens(tmp_path / "lens.json", lens)
        files = [str(tmp_path / "hand.json"), str(tmp_path / "lens.json")]
    measured = loaded.station.calibration.model_copy(update={"files": {name: tuple(files)}})
    calibrated = loaded.model_copy(update={"station": loaded.station.model_copy(update={"calibration": measured})})
    assert (np.abs(seen_from(calibrated)[:, 2]) < 1e-4).mean() > 0.4
    off = seen_from(loaded)[:, 2]
    assert (np.abs(off) < 1e-3).mean() < 0.1, "20 mm along its axis"


def test_the_lens_of_a_calibration_comes_with_its_distortion(tmp_path: Path) -> None:
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle"), *KEYS)
    lens = CameraModel(
        kind="brown", width=40, height=32, fx=33.0, fy=34.0, cx=19.0, cy=16.0, distortion=(-0.2, 0.05, 0.0, 0.0, 0.0)
    )
    write_lens(tmp_path / "lens.json", lens)
    pointing = tiny_station(tmp_path / "bundle", *KEYS, ("calibration.files.front", f"'{tmp_path / 'lens.json'}'"))
    found, before = fused_cameras(pointing), fused_cameras(loaded)
    assert found["front"].model(32, 40) == lens
    assert found["front"].T_mount_camera == before["front"].T_mount_camera
    assert found["wrist"] == before["wrist"]


REAL = (
    "{kind = 'realsense', name = 'left', serial = '081500001234', height = 32, width = 40, rate_hz = 30.0, "
    "auto_exposure = true}"
)
USB = (
    "{kind = 'uvc', name = 'right', device = '/dev/video0', height = 32, width = 40, rate_hz = 30.0, "
    "auto_exposure = true}"
)
PLACE = {
    "mount": "base", "T_mount_camera": np.eye(4).ravel().tolist(), "fx": 40.0, "fy": 40.0, "cx": 19.5, "cy": 15.5,
}  # fmt: skip


def station(tmp_path: Path, files: dict[str, tuple[str, ...]] | None = None, **view: Any) -> LoadedStation:
    """The simulated station with a RealSense and a USB camera more, calibration files and a fused view."""
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle"))
    values = loaded.station.model_dump(mode="json") | {"fused_view": VOLUME | view}
    values["camera"] = [*values["camera"], *(tomllib.loads(f"camera = {text}")["camera"] for text in (REAL, USB))]
    values["calibration"]["files"] = {
        name: [str(tmp_path / file) for file in own] for name, own in (files or {}).items()
    }
    return LoadedStation(station=Station.model_validate(values), path=loaded.path)


def test_all_cameras_with_depth_are_in_the_view_or_those_that_it_names(tmp_path: Path) -> None:
    assert list(fused_cameras(station(tmp_path, cameras=["wrist"]))) == ["wrist"]
    given = fused_cameras(station(tmp_path, geometry={"left": PLACE}))
    assert list(given) == ["front", "wrist", "left"]
    write_rig(tmp_path / "rig.json", {"left": ("hand", np.eye(4))}, size=(32, 40))
    measured = fused_cameras(station(tmp_path, {"left": ("rig.json",)}))
    assert list(measured) == ["front", "wrist", "left"]
    assert (measured["left"].mount, measured["left"].fx) == ("tcp", 90.0)
    assert fused_cameras(tiny_station(tmp_path / "bundle")) == {}


def test_cameras_without_depth_a_place_or_a_lens_are_refused_by_name(tmp_path: Path) -> None:
    write_hand_eye(tmp_path / "hand.json", np.eye(4))
    lens = CameraModel(kind="pinhole", width=40, height=32, fx=33.0, fy=34.0, cx=19.0, cy=16.0)
    write_lens(tmp_path / "lens.json", lens)
    write_lens(tmp_path / "large.json", lens.model_copy(update={"width": 80}))
    for changes, message in [
        ({"cameras": ["top"]}, "names camera 'top' (the station has"),
        ({"geometry": {"top": PLACE}}, "names camera 'top' (the station has"),
        ({"cameras": ["right"]}, "camera 'right', which is of kind 'uvc' and has no depth"),
        ({}, "camera 'left': nothing says where it is; name its file of `calibrate_rig.py extrinsics` in calib"),
        ({"files": {"left": ("hand.json",)}}, "calibration.files.left (hand.json) says where it is and not its lens"),
        ({"files": {"left": ("lens.json",)}}, "calibration.files.left (lens.json) does not say where it is; name"),
        ({"files": {"left": ("large.json",)}}, "pictures of 80x32, the camera gives 40x32; calibrate at that size"),
    ]:
        with pytest.raises(BadInputError) as caught:
            fused_cameras(station(tmp_path, **changes))
        assert message in str(caught.value)
    for wrong in ("[]", "3", "['']", "['a.json', 4]"):
        with pytest.raises(
            BadInputError, match=r"calibration.files.front: must be the name of a file, or a list of such"
        ):
            tiny_station(tmp_path / "bundle", ("calibration.files.front", wrong))
    with pytest.raises(ValueError, match=r"calibration.files.left and fused_view.geometry.left both say where camera"):
        station(tmp_path, {"left": ("hand.json",)}, geometry={"left": PLACE})

"""The fused view of whole stations: in the observation, before the policy, in the log, and in the replay of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.cloud_config import FusedViewConfig
from perception.observation import Verdict
from policy.bundle import load_bundle
from policy.episode_reader import read_episode
from policy.onnx_session import PolicyError
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.fused_cameras import fused_cameras
from teleop.replay import verify_run
from teleop.rig import Rig
from tests.replay_run import changed, make_run
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

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


def view(**changes: Any) -> FusedViewConfig:
    return FusedViewConfig.model_validate(VOLUME | changes)


def test_cameras_without_depth_or_a_place_are_refused_by_name(tmp_path: Path) -> None:
    real = (
        "{kind = 'realsense', name = 'left', serial = '081500001234', height = 32, width = 40, rate_hz = 30.0, "
        "auto_exposure = true}"
    )
    usb = (
        "{kind = 'uvc', name = 'right', device = '/dev/video0', height = 32, width = 40, rate_hz = 30.0, "
        "auto_exposure = true}"
    )
    loaded = tiny_station(make_tiny_bundle(tmp_path / "bundle"))
    more = [*loaded.station.camera, *tiny_cameras(real, usb)]
    loaded = loaded.model_copy(update={"station": loaded.station.model_copy(update={"camera": tuple(more)})})
    where = fused_cameras(loaded, view())["front"]
    place = where.model_dump()
    assert list(fused_cameras(loaded, view())) == ["front", "wrist"]
    assert list(fused_cameras(loaded, view(cameras=["wrist"]))) == ["wrist"]
    assert list(fused_cameras(loaded, view(geometry={"left": place}))) == ["front", "wrist", "left"]
    for changes, message in [
        ({"cameras": ["top"]}, "names camera 'top' (the station has"),
        ({"geometry": {"top": place}}, "names camera 'top' (the station has"),
        ({"cameras": ["right"]}, "camera 'right', which is of kind 'uvc' and has no depth"),
        ({"cameras": ["left"]}, "camera 'left' has no geometry; add [fused_view.geometry.left]"),
    ]:
        with pytest.raises(BadInputError) as caught:
            fused_cameras(loaded, view(**changes))
        assert message in str(caught.value)


def tiny_cameras(*sections: str) -> list[Any]:
    import tomllib

    from pydantic import TypeAdapter

    from perception.config import CameraConfig

    read: TypeAdapter[Any] = TypeAdapter(CameraConfig)
    return [read.validate_python(tomllib.loads(f"camera = {section}")["camera"]) for section in sections]

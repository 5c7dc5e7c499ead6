from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.config import ImageSize, LiveCameraConfig
from policy.manifest import CameraInput
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.policy_cameras import policy_cameras
from teleop.rig import Rig
from tests.test_bundle import edited
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

WINDOW = (0.25, 0.0, 0.75, 1.0)
FULL = [
    (f"camera.{name}.{edge}", pixels)
    for name in ("front", "wrist")
    for edge, pixels in (("height", "48"), ("width", "80"))
]


def cropped(folder: Path) -> Path:
    """A bundle that looks at the middle half of `front`'s width, and at `wrist` as bundles without a window do."""
    cameras = [
        {"name": "front", "height": 32, "width": 40, "crop": list(WINDOW), "colour": "rgb"},
        {"name": "wrist", "height": 32, "width": 40, "colour": "rgb"},
    ]
    return edited(make_tiny_bundle(folder), "cameras", cameras)


def test_what_a_bundle_was_trained_on_is_what_the_station_gives_it(tmp_path: Path) -> None:
    loaded = tiny_station(cropped(tmp_path / "bundle"), *FULL)
    with Rig(loaded, VirtualClock(100.0), seed=0) as rig:
        front, wrist = rig.cameras
        assert front.size == wrist.size == (32, 40)
        found = {camera.name: camera for camera in policy_cameras(loaded, rig.bundle.manifest)}
        assert isinstance(found["front"], LiveCameraConfig)
        assert isinstance(found["wrist"], LiveCameraConfig)
        assert (found["front"].crop, found["wrist"].crop) == (WINDOW, None)
        state = rig.arm.state()
        rig.clock.sleep_until(100.4)
        observation = rig.synchroniser.observe(rig.clock.now_s(), rig.arm.state())
        assert state.measured_s < observation.state.measured_s
        assert observation.images["front"].shape == (32, 40, 3)
        features = rig.bundle.encode(observation.images, observation.proprio)
        assert np.isfinite(features).all()


def test_old_manifests_have_no_window_and_red_first() -> None:
    old = CameraInput.model_validate_json('{"name": "front", "height": 8, "width": 8, "colour": "rgb"}', strict=True)
    assert (old.crop, old.colour) == (None, "rgb")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            ("camera.front.crop", "[0.0, 0.0, 0.5, 1.0]"),
            "crop is [0.0, 0.0, 0.5, 1.0], the bundle was trained on [0.25, 0.0, 0.75, 1.0]; leave crop out",
        ),
        (
            ("camera.wrist.crop", "[0.0, 0.0, 0.5, 1.0]"),
            "crop is [0.0, 0.0, 0.5, 1.0], the bundle was trained on the largest window about the middle",
        ),
        (("camera.front.width", "64"), "does not suit the bundle: camera 'front': image is 32x40, more than"),
        (("camera.wrist.height", "24"), "does not suit the bundle: camera 'wrist': image is 32x40, more than"),
    ],
)
def test_a_station_that_cannot_show_what_the_bundle_was_trained_on_is_refused(
    tmp_path: Path, override: tuple[str, str], reason: str
) -> None:
    loaded = tiny_station(cropped(tmp_path / "bundle"), *FULL, override)
    with pytest.raises(BadInputError) as caught:
        Rig(loaded, VirtualClock(100.0), seed=0).__enter__()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_stays_the_stations_own_word(tmp_path: Path) -> None:
    loaded = tiny_station(
        make_tiny_bundle(tmp_path / "bundle"), *FULL, ("camera.front.image", "{height = 20, width = 20}")
    )
    with pytest.raises(BadInputError, match=r"takes camera 'front' at 40x32, .* gives 20x20"):
        Rig(loaded, VirtualClock(100.0), seed=0).__enter__()
    assert isinstance(loaded.station.camera[0], LiveCameraConfig)
    assert loaded.station.camera[0].image == ImageSize(height=20, width=20)

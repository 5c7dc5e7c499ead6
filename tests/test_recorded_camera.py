from __future__ import annotations

import numpy as np
import pytest

from perception.camera import Camera
from perception.recorded_camera import RecordedCamera
from robot.errors import BadInputError
from robot.recording import Recording
from tests.contracts import CameraContract, newest
from tests.test_recording import EXCERPT


class TestRecordedCamera(CameraContract):
    latency_s = 0.0

    def make(self) -> Camera:
        recording = Recording.open(EXCERPT)
        recording.select(0, self.begin_s)
        return RecordedCamera(recording, "view_0", "image_0", self.latency_s)


class TestRecordedCameraWithLatency(TestRecordedCamera):
    latency_s = 0.13


def test_frame_k_is_taken_k_periods_after_the_start_and_arrives_later_by_the_latency() -> None:
    recording = Recording.open(EXCERPT)
    episode = recording.select(1, 20.0)
    camera = RecordedCamera(recording, "view_1", "image_1", 0.05)
    assert newest(camera, 20.0) is None
    for step in range(5):
        frame = newest(camera, 20.0 + step / 5.0 + 0.05)
        assert frame is not None
        assert frame.captured_s == pytest.approx(20.0 + step / 5.0, abs=2e-6)
        assert frame.arrived_s == frame.captured_s + 0.05
        np.testing.assert_array_equal(frame.rgb, episode.images["image_1"][step])


def test_views_of_one_step_are_captured_at_the_same_time() -> None:
    recording = Recording.open(EXCERPT)
    recording.select(0, 20.0)
    cameras = [RecordedCamera(recording, f"view_{k}", f"image_{k}") for k in range(3)]
    frames = [newest(camera, 20.4) for camera in cameras]
    assert len({frame.captured_s for frame in frames if frame is not None}) == 1


def test_ids_go_on_from_episode_to_episode_and_no_frame_of_the_last_one_remains() -> None:
    recording = Recording.open(EXCERPT)
    recording.select(0, 20.0)
    camera = RecordedCamera(recording, "view_0", "image_0")
    last = newest(camera, 25.0)
    assert last is not None
    episode = recording.select(2, 30.0)
    assert newest(camera, 29.0) is None
    first = newest(camera, 30.0)
    assert first is not None
    assert first.frame_id == last.frame_id + 1
    np.testing.assert_array_equal(first.rgb, episode.images["image_0"][0])


def test_after_the_end_the_last_frame_repeats_and_grows_old() -> None:
    recording = Recording.open(EXCERPT)
    recording.select(0, 20.0)
    camera = RecordedCamera(recording, "view_0", "image_0")
    end, later = newest(camera, 20.8), newest(camera, 60.0)
    assert end is not None
    assert later is not None
    assert (later.frame_id, later.captured_s) == (end.frame_id, end.captured_s)


def test_pixels_cannot_be_written() -> None:
    recording = Recording.open(EXCERPT)
    recording.select(0, 20.0)
    frame = newest(RecordedCamera(recording, "view_0", "image_0"), 20.0)
    assert frame is not None
    with pytest.raises(ValueError, match="read-only"):
        frame.rgb[0, 0, 0] = 1


def test_unknown_view_or_latency_is_refused() -> None:
    recording = Recording.open(EXCERPT)
    with pytest.raises(
        BadInputError, match=r"camera 'front': recording .* has no view 'image_7' \(allowed \['image_0'"
    ):
        RecordedCamera(recording, "front", "image_7")
    with pytest.raises(BadInputError, match=r"latency_s is -0.1 \(allowed 0 or more\)"):
        RecordedCamera(recording, "front", "image_0", -0.1)
    with pytest.raises(BadInputError, match="latency_s is nan"):
        RecordedCamera(recording, "front", "image_0", float("nan"))

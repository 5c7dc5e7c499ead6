from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from perception.config import ImageSize, PatternCameraConfig, SimulatedCameraConfig
from perception.frame_publisher import FramePublisher, Speaker
from perception.frame_ring import FrameLayout, FrameRing
from perception.frame_source import RawFrame
from perception.pattern_source import pattern, verify_pattern
from perception.policy_image import policy_image
from perception.shared_camera import SharedCamera
from tests.contracts import newest

CONFIG = PatternCameraConfig(
    kind="pattern", name="front", height=24, width=32, rate_hz=30.0, latency_s=0.02, latency_uncertainty_s=0.003
)


def raw(frame_id: int, **changes: object) -> RawFrame:
    """Frame number `frame_id` of a device without a clock, at 30 Hz."""
    frame = RawFrame(
        frame_id=frame_id, arrived_s=50.0 + frame_id / 30.0, device_s=None, rgb=pattern(1, frame_id, (24, 32))
    )
    return dataclasses.replace(frame, **changes)


class Bench:
    def __init__(self, config: PatternCameraConfig | SimulatedCameraConfig) -> None:
        self.ring = FrameRing.new(FrameLayout.of(config))
        self.said: list[str] = []
        self.publisher = FramePublisher(self.ring, config, self.said.append)

    def ids(self) -> list[int]:
        return [stamp.frame_id for stamp in self.ring.stamps(100)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(CONFIG)
    with closing(bench.ring):
        yield bench


def test_without_a_clock_a_frame_was_taken_the_latency_before_it_arrived(bench: Bench) -> None:
    assert bench.publisher.take(raw(0))
    (stamp,) = bench.ring.stamps(1)
    assert stamp.captured_s == pytest.approx(50.0 - 0.02)
    assert (stamp.arrived_s, stamp.uncertainty_s) == (50.0, 0.003)


def test_with_a_clock_the_devices_stamps_space_the_frames(bench: Bench) -> None:
    late_s = np.random.default_rng(0).exponential(0.01, 40)
    for k in range(40):
        bench.publisher.take(raw(k, device_s=7.0 + k / 30.0, arrived_s=50.02 + k / 30.0 + late_s[k]))
    stamps = bench.ring.stamps(5)
    assert np.diff([stamp.captured_s for stamp in stamps]) == pytest.approx(1 / 30.0, abs=1e-4)
    assert stamps[-1].captured_s == pytest.approx(50.0 + 39 / 30.0, abs=0.005)
    assert stamps[-1].uncertainty_s > 0.0


def test_the_image_is_made_once_and_the_full_picture_kept() -> None:
    bench = Bench(CONFIG.model_copy(update={"image": ImageSize(height=12, width=12)}))
    with closing(bench.ring):
        bench.publisher.take(raw(3))
        frame = newest(SharedCamera(bench.ring), 60.0)
        assert frame is not None
        np.testing.assert_array_equal(frame.rgb, policy_image(pattern(1, 3, (24, 32)), (12, 12)))
        full = np.empty((24, 32, 3), np.uint8)
        assert bench.ring.full(0, full)
        assert verify_pattern(full) == (1, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rgb": np.zeros((12, 32, 3), np.uint8)}, r"it is \(12, 32, 3\) uint8, the station says \(24, 32, 3\) uint8"),
        ({"rgb": np.zeros((24, 32, 3), np.float32)}, r"it is \(24, 32, 3\) float32"),
        ({"rgb": np.zeros((24, 32), np.uint8)}, r"it is \(24, 32\) uint8"),
        ({"frame_id": 4}, "its id goes back"),
        ({"frame_id": 2}, "its id goes back"),
        ({"frame_id": 1 << 62}, "its id is too far ahead"),
        ({"arrived_s": float("nan")}, "its stamp is not a finite number"),
        ({"arrived_s": 50.1}, "its stamp is not newer"),
    ],
)
def test_a_frame_that_cannot_be_is_not_published_but_counted_and_said(
    bench: Bench, changes: dict[str, object], reason: str
) -> None:
    assert bench.publisher.take(raw(4))
    assert not bench.publisher.take(dataclasses.replace(raw(5), **changes))
    assert bench.publisher.refused.total() == 1
    assert re.search(f"is not used: {reason}.* \\(1 refused so far\\)", bench.said[0])
    assert bench.publisher.take(raw(6))
    assert bench.ids() in ([0, 1], [0, 2])  # a refused id is a gap like any other


def test_a_frame_in_its_place_is_published_from_there_and_a_refused_one_leaves_it_to_the_next(bench: Bench) -> None:
    for frame_id, good in ((0, True), (1, True), (1, False), (2, True)):
        place = bench.publisher.place()
        pattern(1, frame_id if good else 9, (24, 32), place.rgb)
        assert bench.publisher.take(raw(frame_id, rgb=place.rgb)) == good
        assert (bench.publisher.place() is place) != good
    full = np.empty((24, 32, 3), np.uint8)
    for number, frame_id in enumerate((0, 1, 2)):
        assert bench.ring.full(number, full)
        assert verify_pattern(full) == (1, frame_id)


def test_the_image_is_made_from_the_picture_in_its_place() -> None:
    bench = Bench(CONFIG.model_copy(update={"image": ImageSize(height=12, width=12)}))
    with closing(bench.ring):
        rgb = pattern(1, 3, (24, 32), bench.publisher.place().rgb)
        assert bench.publisher.take(raw(3, rgb=rgb))
        frame = newest(SharedCamera(bench.ring), 60.0)
        assert frame is not None
        np.testing.assert_array_equal(frame.rgb, policy_image(pattern(1, 3, (24, 32)), (12, 12)))


def test_ids_go_on_rising_when_the_device_begins_anew(bench: Bench) -> None:
    for frame_id in (70, 71, 74):
        bench.publisher.take(raw(frame_id))
    bench.publisher.begin()
    for frame_id in (0, 1):
        assert bench.publisher.take(raw(frame_id, arrived_s=60.0 + frame_id))
    assert bench.ids() == [0, 1, 4, 5, 6]


def test_a_successor_goes_on_where_its_predecessor_ended(bench: Bench) -> None:
    for frame_id in (0, 1, 2):
        bench.publisher.take(raw(frame_id))
    with closing(bench.ring):
        successor = FramePublisher(bench.ring, CONFIG, bench.said.append)
        assert not successor.take(raw(0, arrived_s=50.01)), "it was taken before the last one"
        assert successor.take(raw(1, arrived_s=60.0))
        assert bench.ids()[:3] == [0, 1, 2]
        assert bench.ids()[3] > 2


def test_a_device_that_is_opened_again_with_its_clock_set_anew_is_believed_at_once(bench: Bench) -> None:
    for k in range(40):
        assert bench.publisher.take(raw(k, device_s=7.0 + k / 30.0))
    assert not bench.publisher.take(raw(40, device_s=9000.0)), "ahead of the fit"
    bench.publisher.begin()
    assert bench.publisher.take(raw(0, device_s=9000.0, arrived_s=60.0))
    assert bench.ring.stamps(1)[0].captured_s == pytest.approx(60.0 - 0.02, abs=1e-3)


def test_a_backlog_does_not_become_fresh_by_opening_the_device_again(bench: Bench) -> None:
    for k in range(60):
        assert bench.publisher.take(raw(k, device_s=7.0 + k / 30.0))
    for opened in range(3):
        bench.publisher.begin()
        for k in range(40):
            taken_s = 60.0 + 5.0 * opened + k / 30.0
            assert not bench.publisher.take(raw(k, device_s=taken_s - 43.0, arrived_s=taken_s + 0.7))
    bench.publisher.begin()
    assert bench.publisher.take(raw(0, device_s=80.0 - 43.0, arrived_s=80.0))
    assert bench.ring.stamps(1)[0].captured_s == pytest.approx(80.0 - 0.02, abs=1e-3)


def test_whether_a_device_has_a_clock_is_told_anew_when_it_is_opened(bench: Bench) -> None:
    assert bench.publisher.take(raw(0, device_s=7.0))
    bench.publisher.begin()
    assert bench.publisher.take(raw(0, arrived_s=60.0))
    bench.publisher.begin()
    assert bench.publisher.take(raw(0, arrived_s=70.0, device_s=3.0))


def test_a_frame_that_was_half_written_by_a_killed_predecessor_is_never_seen(bench: Bench) -> None:
    bench.publisher.take(raw(0))
    bench.ring._ring._sequences[bench.ring._ring._stride // 8] = 3  # record 1 is being written
    assert bench.ids() == [0]
    successor = FramePublisher(bench.ring, CONFIG, bench.said.append)
    assert successor.take(raw(0, arrived_s=60.0))
    frame = newest(SharedCamera(bench.ring), 60.0)
    assert frame is not None
    assert frame.frame_id == 1
    assert verify_pattern(frame.rgb) == (1, 0)


def test_depth_is_published_where_the_station_wants_it_and_is_refused_when_it_is_missing() -> None:
    config = SimulatedCameraConfig(
        kind="simulated", name="front", mount="base", eye_m=(0.45, 0.0, 0.9), target_m=(0.45, 0.0, 0.0),
        up=(1.0, 0.0, 0.0), height=24, width=32, vertical_fov_deg=50.0, rate_hz=20.0, depth_stream=True,
    )  # fmt: skip
    bench = Bench(config)
    with closing(bench.ring):
        depth_m = np.random.default_rng(0).random((24, 32), np.float32)
        assert not bench.publisher.take(raw(0))
        assert not bench.publisher.take(raw(1, depth_m=depth_m[:12]))
        assert not bench.publisher.take(raw(2, depth_m=depth_m.astype(np.float64)))
        assert bench.publisher.take(raw(3, depth_m=depth_m))
        out = np.empty((24, 32), np.float32)
        assert bench.ring.full(0, np.empty((24, 32, 3), np.uint8), out)
        np.testing.assert_array_equal(out, depth_m)
        assert "its depth is missing" in bench.said[0]


def test_lines_are_said_at_most_every_ten_seconds() -> None:
    now_s, stream = [100.0], io.StringIO()
    say = Speaker("front", stream, lambda: now_s[0])
    for step in range(25):
        now_s[0] = 100.0 + step
        say(f"at {step}")
    assert stream.getvalue().splitlines() == ["camera 'front': at 0", "camera 'front': at 10", "camera 'front': at 20"]

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from perception.camera import Camera
from perception.config import LiveCameraConfig, PatternCameraConfig
from perception.faulty_source import CameraFault, FaultySource
from perception.frame import FrameStamp
from perception.frame_publisher import FramePublisher
from perception.frame_ring import FrameLayout, FrameRing
from perception.pattern_source import PatternSource, camera_id, pattern, verify_pattern
from perception.shared_camera import SharedCamera
from robot.clock import VirtualClock
from tests.contracts import CameraContract, newest

ROOT = Path(__file__).parents[1]
LONGEST_S = 60.0  # a safety net, not a claim
LAYOUT = FrameLayout(camera="front", image=(24, 32), full=(24, 32))
CONFIG = PatternCameraConfig(
    kind="pattern", name="front", height=24, width=32, rate_hz=30.0, jitter_s=0.004, drift_ppm=80.0
)


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    with closing(FrameRing.new(LAYOUT)) as ring:
        yield ring


def publish(ring: FrameRing, frame_id: int, arrived_s: float) -> None:
    rgb = pattern(camera_id("front"), frame_id, (24, 32))
    stamp = FrameStamp(frame_id=frame_id, captured_s=arrived_s - 0.01, arrived_s=arrived_s, uncertainty_s=1e-3)
    ring.publish(stamp, rgb, rgb)


class InContract(CameraContract):
    """A pattern camera whose process runs on a virtual clock, showing a fault all the time."""

    config: LiveCameraConfig = CONFIG
    fault = (CameraFault.NONE, 0.0)

    def make(self) -> Camera:
        assert isinstance(self.config, PatternCameraConfig)
        self.clock = VirtualClock(self.begin_s)
        source = PatternSource(self.config, seed=3, clock=self.clock)
        self.source = FaultySource(source, lambda: self.fault, seed=3, clock=self.clock)
        self.source.__enter__()
        ring = FrameRing.new(FrameLayout.of(self.config))
        self.publisher = FramePublisher(ring, self.config, lambda line: None)
        return SharedCamera(ring)

    def let_run(self, now_s: float) -> None:
        while self.clock.now_s() < now_s:
            frame = self.source.wait(now_s - self.clock.now_s())
            if frame is not None:
                self.publisher.take(frame)


class TestSharedCamera(InContract):
    pass


class TestSharedCameraWithASmallerImage(InContract):
    config = PatternCameraConfig.model_validate(CONFIG.model_dump() | {"image": {"height": 12, "width": 12}})


class TestSharedCameraThatIsSlow(InContract):
    fault = (CameraFault.SLOW, 0.05)


class TestSharedCameraOutOfOrder(InContract):
    fault = (CameraFault.OUT_OF_ORDER, 0.0)


class TestSharedCameraWithAJumpingClock(InContract):
    fault = (CameraFault.JUMPING_CLOCK, 0.3)


class TestSharedCameraThatDrops(InContract):
    fault = (CameraFault.DROPS, 0.3)


def test_the_picture_is_whole_and_in_memory_of_its_own(ring: FrameRing) -> None:
    camera = SharedCamera(ring)
    publish(ring, 5, 10.0)
    (stamp,) = camera.recent(10.0, 1)
    frames = [camera.frame(stamp) for _ in range(2)]
    assert all(frame is not None and verify_pattern(frame.rgb) == (camera_id("front"), 5) for frame in frames)
    assert frames[0] is not None
    assert frames[1] is not None
    assert not np.shares_memory(frames[0].rgb, frames[1].rgb)
    for frame_id in range(6, 6 + 2 * LAYOUT.slots):
        publish(ring, frame_id, 10.1)
    assert verify_pattern(frames[0].rgb) == (camera_id("front"), 5)


def test_a_frame_that_arrives_later_is_not_there_yet(ring: FrameRing) -> None:
    camera = SharedCamera(ring)
    for frame_id in range(4):
        publish(ring, frame_id, 10.0 + frame_id)
    assert [stamp.frame_id for stamp in camera.recent(11.5, 3)] == [0, 1]
    assert [stamp.frame_id for stamp in camera.recent(12.0, 1)] == [2]
    assert camera.recent(9.0, 3) == []


def test_a_frame_that_was_written_over_is_none_and_counted(ring: FrameRing) -> None:
    camera = SharedCamera(ring)
    publish(ring, 0, 10.0)
    (stamp,) = camera.recent(10.0, 1)
    assert camera.frame(stamp) is not None
    assert camera.torn == 0
    for frame_id in range(1, 1 + LAYOUT.slots):
        publish(ring, frame_id, 10.1)
    assert camera.frame(stamp) is None
    assert camera.torn == 1


def test_gaps_in_the_ids_are_counted_and_frames_that_nobody_asked_for_are_not(ring: FrameRing) -> None:
    camera = SharedCamera(ring)
    assert (camera.published, camera.dropped) == (0, 0)
    for frame_id in (10, 11, 12, 13):
        publish(ring, frame_id, 10.0)
    camera.recent(10.0, 1)  # counts from here on
    assert (camera.published, camera.dropped) == (1, 0)
    for frame_id in (14, 15, 18, 19, 23):
        publish(ring, frame_id, 10.0)
    camera.recent(10.0, 1)
    assert (camera.published, camera.dropped) == (6, 5)
    camera.recent(10.0, 3)
    assert (camera.published, camera.dropped) == (6, 5)


_RACES = """
import itertools, sys, time
from contextlib import closing
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from perception.pattern_source import camera_id, pattern
layout = FrameLayout.model_validate_json(sys.argv[2])
pictures = [pattern(camera_id(layout.camera), frame_id, layout.full) for frame_id in range(16)]
with closing(FrameRing(int(sys.argv[1]), layout)) as ring:
    for frame_id in itertools.count():
        now_s = time.monotonic()
        stamp = FrameStamp(frame_id=frame_id, captured_s=now_s, arrived_s=now_s)
        ring.publish(stamp, pictures[frame_id % 16], pictures[frame_id % 16])
"""


def test_no_torn_picture_is_handed_out_while_the_camera_laps_its_reader() -> None:
    layout = LAYOUT.model_copy(update={"image": (480, 640), "full": (480, 640), "slots": 3})
    with closing(FrameRing.new(layout)) as ring:
        camera = SharedCamera(ring)
        command = [sys.executable, "-c", _RACES, str(ring.file), layout.model_dump_json()]
        whole = 0
        deadline_s = time.monotonic() + LONGEST_S
        with subprocess.Popen(command, pass_fds=[ring.file], cwd=ROOT) as writer:
            try:
                while (whole < 2000 or camera.torn < 20) and time.monotonic() < deadline_s:
                    for stamp in camera.recent(time.monotonic(), 2):  # the older of two is written over soon
                        frame = camera.frame(stamp)
                        if frame is not None:
                            assert verify_pattern(frame.rgb) == (camera_id("front"), stamp.frame_id % 16)
                            whole += 1
                assert writer.poll() is None
            finally:
                writer.kill()
    assert whole >= 2000
    assert camera.torn >= 20


def test_a_killed_reader_does_not_matter(ring: FrameRing) -> None:
    reads = """
import sys
from perception.frame_ring import FrameLayout, FrameRing
from perception.shared_camera import SharedCamera
from tests.contracts import newest
camera = SharedCamera(FrameRing(int(sys.argv[1]), FrameLayout.model_validate_json(sys.argv[2])))
print("reads", flush=True)
while True:
    newest(camera, 1e9)
"""
    command = [sys.executable, "-c", reads, str(ring.file), LAYOUT.model_dump_json()]
    publish(ring, 0, 10.0)
    with subprocess.Popen(command, pass_fds=[ring.file], cwd=ROOT, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
        for frame_id in range(1, 50):
            publish(ring, frame_id, 10.0)
        reader.kill()
    for frame_id in range(50, 100):
        publish(ring, frame_id, 10.0)
    frame = newest(SharedCamera(ring), 10.0)
    assert frame is not None
    assert verify_pattern(frame.rgb) == (camera_id("front"), 99)


def test_the_ring_stays_its_makers(ring: FrameRing) -> None:
    publish(ring, 0, 10.0)
    with SharedCamera(ring) as camera:
        assert newest(camera, 10.0) is not None
    os.fstat(ring.file)
    assert newest(camera, 10.0) is not None

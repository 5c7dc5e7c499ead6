from __future__ import annotations

import itertools

import numpy as np
import pytest

from perception.config import PatternCameraConfig
from perception.faulty_source import CameraFault, FaultySource
from perception.frame_source import Place, RawFrame
from perception.pattern_source import PatternSource, camera_id, verify_pattern
from robot.clock import VirtualClock
from robot.errors import HardwareError

CONFIG = PatternCameraConfig(kind="pattern", name="front", height=24, width=32, rate_hz=30.0)
PERIOD_S = 1.0 / 30.0


class Bench:
    """A source on a virtual clock whose fault can be changed while it runs."""

    def __init__(self) -> None:
        self.clock = VirtualClock(100.0)
        self.fault: tuple[int, float] = (CameraFault.NONE, 0.0)
        self.pattern = PatternSource(CONFIG, seed=1, clock=self.clock)
        self.source = FaultySource(self.pattern, lambda: self.fault, seed=1, clock=self.clock)
        self.source.__enter__()

    def show(self, fault: CameraFault, amount: float = 0.0, *, seconds: float = 5.0) -> list[RawFrame]:
        """What comes while the fault is on, waited for as the camera's process does."""
        self.fault = (fault, amount)
        end_s, frames = self.clock.now_s() + seconds, []
        while self.clock.now_s() < end_s:
            before_s = self.clock.now_s()
            frame = self.source.wait(0.05)
            assert self.clock.now_s() <= before_s + 0.05 + 1e-9
            if frame is not None:
                frames.append(frame)
        return frames

    def delay_s(self, frame: RawFrame) -> float:
        """Time from capture to arrival."""
        assert frame.device_s is not None
        return frame.arrived_s - (frame.device_s - self.pattern.device_s(0.0))


def ids(frames: list[RawFrame]) -> list[int]:
    return [frame.frame_id for frame in frames]


def test_without_a_fault_every_frame_is_handed_on_as_it_is() -> None:
    bench, bare = Bench(), PatternSource(CONFIG, seed=1, clock=VirtualClock(100.0))
    with bare:
        for frame in bench.show(CameraFault.NONE):
            same = bare.wait(1.0)
            assert same is not None
            assert (frame.frame_id, frame.arrived_s, frame.device_s) == (same.frame_id, same.arrived_s, same.device_s)
            assert verify_pattern(frame.rgb) == verify_pattern(same.rgb) is not None


def test_a_frame_that_is_held_is_never_written_over_by_one_in_its_place() -> None:
    bench, place = Bench(), Place(rgb=np.zeros((24, 32, 3), np.uint8))
    in_place = []
    for fault in 5 * (CameraFault.NONE, CameraFault.SLOW, CameraFault.NONE, CameraFault.OUT_OF_ORDER):
        bench.fault = (fault, 0.21)
        for _ in range(30):
            frame = bench.source.wait(0.05, place)
            if frame is not None:
                assert verify_pattern(frame.rgb) == (camera_id("front"), frame.frame_id)
                in_place.append((fault, frame.rgb is place.rgb))
    assert all(fault == CameraFault.NONE for fault, there in in_place if there)
    assert sum(there for _, there in in_place) > 50
    assert sum(not there for fault, there in in_place if fault == CameraFault.NONE) > 10  # those still held


def test_a_slow_camera_gives_every_frame_later_by_the_amount() -> None:
    bench = Bench()
    frames = bench.show(CameraFault.SLOW, 0.21)
    assert set(np.diff(ids(frames))) == {1}
    assert [bench.delay_s(frame) for frame in frames] == pytest.approx([CONFIG.latency_s + 0.21] * len(frames))
    assert len(frames) >= 4.7 / PERIOD_S


def test_out_of_order_frames_come_after_their_successor_and_none_is_lost() -> None:
    frames = Bench().show(CameraFault.OUT_OF_ORDER)
    order = ids(frames)
    backward = sum(later < earlier for earlier, later in itertools.pairwise(order))
    assert backward >= 10
    assert set(range(max(order) - 1)) <= {*order}


def test_a_jumping_clock_is_ahead_by_the_amount_now_and_then() -> None:
    bench = Bench()
    delays_s = np.array([bench.delay_s(frame) for frame in bench.show(CameraFault.JUMPING_CLOCK, 0.5)])
    ahead = delays_s < 0.0
    assert 0.1 < ahead.mean() < 0.6
    np.testing.assert_allclose(delays_s, np.where(ahead, CONFIG.latency_s - 0.5, CONFIG.latency_s), atol=1e-6)


def test_the_share_asked_for_is_dropped() -> None:
    order = ids(Bench().show(CameraFault.DROPS, 0.3, seconds=20.0))
    assert 1.0 - len(order) / (order[-1] - order[0] + 1) == pytest.approx(0.3, abs=0.06)


def test_half_of_a_picture_is_of_the_wrong_size() -> None:
    assert {frame.rgb.shape for frame in Bench().show(CameraFault.WRONG_SIZE)} == {(12, 32, 3)}


def test_a_silent_camera_gives_nothing_until_the_fault_is_taken_back() -> None:
    bench = Bench()
    assert bench.show(CameraFault.SILENT) == []
    assert len(bench.show(CameraFault.NONE)) > 100


def test_a_camera_that_is_gone_cannot_be_waited_for_nor_opened() -> None:
    bench = Bench()
    bench.fault = (CameraFault.GONE, 0.0)
    with pytest.raises(HardwareError, match="the device is gone"):
        bench.source.wait(0.05)
    bench.source.__exit__(None, None, None)
    with pytest.raises(HardwareError, match="the device is gone"):
        bench.source.__enter__()
    bench.fault = (CameraFault.NONE, 0.0)
    with bench.source:
        assert bench.show(CameraFault.NONE)

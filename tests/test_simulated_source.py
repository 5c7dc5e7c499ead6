"""A simulated camera's driver gives pictures of the world as it was when they were taken, when they would arrive."""

from __future__ import annotations

import numpy as np
import pytest

from perception.config import SimulatedCameraConfig
from perception.frame_source import RawFrame
from perception.simulated_camera import SimulatedCamera
from perception.simulated_source import SimulatedSource
from robot.clock import VirtualClock
from robot.fr3 import HOME_Q_RAD
from robot.simulation.hardware import SimulatedHardware
from robot.simulation.world import TIMESTEP_S
from tests.servo_bench import Rings
from tests.test_simulated_camera import FRONT

ROUNDING_S = 1e-9


class WorldClock(VirtualClock):
    """A clock along which the hardware makes its steps."""

    def __init__(self) -> None:
        super().__init__(100.0)
        self.rings = Rings()
        self.hardware = SimulatedHardware(self.rings.world, self.rings.set_points, self.rings.world_orders, 100.0)
        self.world_runs = True

    def sleep_until(self, deadline_s: float) -> None:
        while self.world_runs and self.hardware.next_s <= deadline_s + ROUNDING_S:
            self.hardware.advance(self.hardware.next_s)
        super().sleep_until(deadline_s)


def take(config: SimulatedCameraConfig, clock: WorldClock, seconds: float) -> list[tuple[float, RawFrame]]:
    """Wait for frames in slices, as the camera's process does; when each came, and the frame."""
    frames = []
    ends_s = clock.now_s() + seconds
    with SimulatedSource(config, clock.rings.world.file, 4, clock) as source:
        while clock.now_s() < ends_s:
            frame = source.wait(0.013)
            if frame is not None:
                frames.append((clock.now_s(), frame))
    return frames


def test_pictures_come_at_the_cameras_rate_stamped_with_the_worlds_time() -> None:
    frames = take(FRONT, WorldClock(), 2.0)
    assert [frame.frame_id for _, frame in frames] == list(range(len(frames)))
    assert 39 <= len(frames) <= 41
    captured = [frame.device_s for _, frame in frames]
    np.testing.assert_allclose(np.diff(captured), 1.0 / FRONT.rate_hz, atol=TIMESTEP_S + ROUNDING_S)
    for now_s, frame in frames:
        assert frame.device_s is not None
        assert frame.arrived_s == pytest.approx(frame.device_s + FRONT.latency_s, abs=1e-9)
        assert now_s == pytest.approx(frame.arrived_s, abs=1e-9)


def test_jitter_and_drops_are_as_configured() -> None:
    config = FRONT.model_copy(update={"jitter_s": 0.02, "drop_rate": 0.3})
    frames = take(config, WorldClock(), 10.0)
    assert 110 < len(frames) < 170
    ids = [frame.frame_id for _, frame in frames]
    assert ids == sorted(set(ids))
    delays = [frame.arrived_s - frame.device_s for _, frame in frames if frame.device_s is not None]
    assert min(delays) >= config.latency_s - ROUNDING_S
    assert 0.015 < max(delays) - config.latency_s <= config.jitter_s + ROUNDING_S


def test_a_picture_shows_the_world_of_its_stamp_and_not_of_its_arrival() -> None:
    clock = WorldClock()
    config = FRONT.model_copy(update={"latency_s": 0.2, "rate_hz": 2.0})
    with SimulatedSource(config, clock.rings.world.file, 4, clock) as source:
        clock.sleep_until(100.5)
        look = SimulatedCamera(config, clock.hardware.world, seed=4).look
        seen = look()
        assert source.wait(0.05) is None
        world = clock.hardware.world
        world.set_target(np.array(HOME_Q_RAD) + 0.3, 0.0, world.time_s + 0.1)
        for _ in range(30):  # the arm is moved behind the controller's back
            world.advance(world.time_s + TIMESTEP_S)
        clock.world_runs = False
        frame = source.wait(1.0)
        assert frame is not None
        np.testing.assert_array_equal(frame.rgb, seen[0])
        np.testing.assert_array_equal(frame.depth_m, seen[1])
        assert not np.array_equal(look()[0], frame.rgb)


def test_a_camera_on_the_wrist_looks_from_there() -> None:
    clock = WorldClock()
    config = FRONT.model_copy(update={"mount": "tcp", "eye_m": (0.1, 0.0, -0.05), "target_m": (0.0, 0.0, 0.05)})
    with SimulatedSource(config, clock.rings.world.file, 4, clock) as source:
        clock.sleep_until(100.1)
        seen = SimulatedCamera(config, clock.hardware.world, seed=4).look()[0]
        frame = source.wait(0.1)
        assert frame is not None
        np.testing.assert_array_equal(frame.rgb, seen)


def test_a_world_that_stands_still_gives_no_pictures() -> None:
    clock = WorldClock()
    with SimulatedSource(FRONT, clock.rings.world.file, 4, clock) as source:
        assert source.wait(0.2) is not None
        clock.world_runs = False
        source.wait(0.2)
        assert [source.wait(0.2) for _ in range(3)] == [None, None, None]
        clock.world_runs = True
        assert source.wait(0.2) is not None


def test_a_source_can_be_left_and_entered_again() -> None:
    clock = WorldClock()
    source = SimulatedSource(FRONT, clock.rings.world.file, 4, clock)
    for _ in range(2):
        with source:
            frame = source.wait(0.2)
            assert frame is not None
            assert frame.frame_id == 0

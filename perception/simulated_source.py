"""The driver of a simulated camera in a process of its own: it looks at a mirror of the world."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.config import SimulatedCameraConfig
from perception.frame_source import Place, RawFrame
from perception.raycast import RayCaster
from perception.simulated_camera import bump_pose, intrinsics_px, nominal_pose
from robot.clock import Clock, WallClock
from robot.shared_ring import SharedRing
from robot.simulation.mirrored_world import MirroredWorld
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene


class SimulatedSource:
    """Takes a picture every `1 / rate_hz` of host time, which arrives `latency_s` (+ jitter) after it was taken.

    A picture shows the world as of its newest step and is stamped with that step's time on the host's clock. Where
    the world stands still, there is no picture.

    Args:
        config: section of the station.
        world_ring_fd: file descriptor of the ring that the world's process writes; stays the caller's.
        seed: of jitter and drops.
        clock: the host's.
        scene: on the table.
    """

    def __init__(
        self,
        config: SimulatedCameraConfig,
        world_ring_fd: int,
        seed: int,
        clock: Clock | None = None,
        *,
        scene: Scene = PLACE_SCENE,
    ) -> None:
        self._scene = scene
        self._config, self._file, self._seed = config, world_ring_fd, seed
        self._clock = clock or WallClock()
        self._period_s = 1.0 / config.rate_hz
        fx, fy, cx, cy = intrinsics_px(config)
        self._caster = RayCaster(height=config.height, width=config.width, fx=fx, fy=fy, cx=cx, cy=cy)
        self._T_mount_camera = nominal_pose(config) @ bump_pose(config)

    def __enter__(self) -> Self:
        self._ring = SharedRing(os.dup(self._file))
        self._world = MirroredWorld(self._ring, scene=self._scene)
        self._rng = np.random.default_rng([self._seed, *self._config.name.encode()])
        self._first = self._next = int(self._clock.now_s() // self._period_s) + 1
        self._taken: RawFrame | None = None  # on its way to the host
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ring.close()

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the next picture, None when none came in time; in memory of its own, where it lay on its way."""
        deadline_s = self._clock.now_s() + timeout_s
        while True:
            due_s = self._next * self._period_s if self._taken is None else self._taken.arrived_s
            if due_s > deadline_s:
                self._clock.sleep_until(deadline_s)
                return None
            self._clock.sleep_until(due_s)
            if self._taken is not None:
                frame, self._taken = self._taken, None
                return frame
            self._taken = self._take()

    def _take(self) -> RawFrame | None:
        """Look at the world; None where it has not gone on, or the picture is lost."""
        number = max(self._next, int(self._clock.now_s() // self._period_s))  # those that nobody waited for are lost
        self._next = number + 1
        fresh = self._world.refresh()
        jitter_s = self._rng.uniform(0.0, self._config.jitter_s)
        if self._rng.random() < self._config.drop_rate or not fresh:
            return None
        captured_s = self._world.time_s
        rgb, depth_m = self._look()
        return RawFrame(
            frame_id=number - self._first,
            arrived_s=max(captured_s + self._config.latency_s + jitter_s, self._clock.now_s()),
            device_s=captured_s,
            rgb=rgb,
            depth_m=depth_m,
        )

    def _look(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour and depth of the world as it stood."""
        T_base_mount = self._world.arm_state().T_base_tcp if self._config.mount == "tcp" else np.eye(4)
        return self._caster.render(self._world.model, self._world.data, T_base_mount @ self._T_mount_camera)

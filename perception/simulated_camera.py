"""A camera of the simulated station: ray-cast pictures with latency, jitter, drops and a bump."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.config import LiveCameraConfig, SimulatedCameraConfig
from perception.frame import Frame, FrameStamp
from perception.policy_image import crop_box, policy_image
from perception.raycast import RayCaster
from robot.geometry import rotvec_to_matrix
from robot.simulation.world import SimulatedWorld

Array = NDArray[np.float64]
_ROUNDING_S = 1e-9  # of times that were summed in another order than the clock's
_KEPT = 16  # frames that have arrived and can still be asked for


class SimulatedCamera:
    """Takes a picture of the world every `1 / rate_hz`, which arrives `latency_s` (+ jitter) later.

    Pictures are timed such that the newest one arrives at the latest just when a tick of the same rate
    begins. Jitter and drops come from `seed`.
    """

    def __init__(
        self, config: SimulatedCameraConfig, world: SimulatedWorld, *, seed: int, keeps_full: bool = False
    ) -> None:
        """Look at `world`; with `keeps_full`, full-size pictures and their depth can be asked for."""
        self._config, self._world, self._keeps_full = config, world, keeps_full
        self._full: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}  # by frame id, the last ones
        self.intrinsics_px = intrinsics_px(config)
        fx, fy, cx, cy = self.intrinsics_px
        self._caster = RayCaster(height=config.height, width=config.width, fx=fx, fy=fy, cx=cx, cy=cy)
        self._T_mount_camera = nominal_pose(config) @ bump_pose(config)
        self._rng = np.random.default_rng([seed, *config.name.encode()])
        self._period_s = 1.0 / config.rate_hz
        self._first_s = world.time_s - config.latency_s - config.jitter_s
        self._taken = 0
        while self.next_capture_s() < world.time_s:
            self._taken += 1
        self._pending: deque[Frame] = deque(maxlen=16)
        self._arrived: deque[Frame] = deque(maxlen=_KEPT)

    @property
    def name(self) -> str:
        """Name in the station."""
        return self._config.name

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it gives the policy [px]."""
        return self._config.image_size

    def __enter__(self) -> Self:
        self._world.attach(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._world.detach(self)

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of its own pictures [px]."""
        return self._config.height, self._config.width

    def full(self, stamp: FrameStamp, rgb_out: NDArray[np.uint8], depth_out: NDArray[np.float32]) -> bool:
        """Copy the full picture and its depth of one of the last stamps; False when it is there no more."""
        kept = self._full.get(stamp.frame_id)
        if kept is not None:
            rgb_out[...], depth_out[...] = kept
        return kept is not None

    def next_capture_s(self) -> float:
        """Time of the next picture [s]."""
        return self._first_s + self._taken * self._period_s

    def capture(self) -> None:
        """Take the picture that is due; called by the world standing at that time."""
        captured_s, frame_id = self.next_capture_s(), self._taken
        self._taken += 1
        jitter_s = self._rng.uniform(0.0, self._config.jitter_s) if self._config.jitter_s else 0.0
        if self._config.drop_rate and self._rng.random() < self._config.drop_rate:
            return
        rgb: NDArray[np.uint8]
        depth_m: NDArray[np.float32] | None
        rgb, depth_m = self.look()
        if self._keeps_full:
            self._full[frame_id] = rgb, depth_m
            self._full.pop(frame_id - 2 * _KEPT, None)
        if rgb.shape[:2] != self.size:
            # depth is not resized: the policy does not see it
            rgb, depth_m = policy_image(rgb, self.size, self._config.crop), None
        rgb.flags.writeable = False
        arrived_s = captured_s + self._config.latency_s + jitter_s
        self._pending.append(
            Frame(
                camera=self.name,
                frame_id=frame_id,
                captured_s=captured_s,
                arrived_s=arrived_s,
                rgb=rgb,
                depth_m=depth_m,
            )
        )

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest frames that have arrived by `now_s`, at most `count`, oldest first."""
        while self._pending and self._pending[0].arrived_s <= now_s + _ROUNDING_S:
            self._arrived.append(self._pending.popleft())
        return [frame for frame in self._arrived if frame.arrived_s <= now_s + _ROUNDING_S][-count:]

    def frame(self, stamp: FrameStamp) -> Frame | None:
        """Return the frame of one of these stamps; None when it is among the kept ones no more."""
        return next((frame for frame in self._arrived if frame.frame_id == stamp.frame_id), None)

    def look(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour and depth of the world as it stands."""
        T_base_mount = self._world.arm_state().T_base_tcp if self._config.mount == "tcp" else np.eye(4)
        return self._caster.render(self._world.model, self._world.data, T_base_mount @ self._T_mount_camera)


def intrinsics_px(config: SimulatedCameraConfig) -> tuple[float, float, float, float]:
    """Focal lengths and principal point fx, fy, cx, cy of the pinhole camera's own pictures [px]."""
    focal_px = config.height / 2.0 / math.tan(math.radians(config.vertical_fov_deg) / 2.0)
    return focal_px, focal_px, (config.width - 1) / 2.0, (config.height - 1) / 2.0


def in_image_px(
    config: LiveCameraConfig, full_px: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Turn fx, fy, cx, cy of a camera's own pictures into those of the images that the policy gets [px]."""
    fx, fy, cx, cy = full_px
    full = config.height, config.width
    if config.image_size == full:
        return fx, fy, cx, cy
    left, top, right, bottom = crop_box(full, config.image_size, config.crop)
    along_x, along_y = config.image_size[1] / (right - left), config.image_size[0] / (bottom - top)
    # a pixel's middle has whole coordinates, its edges lie half a pixel off
    return fx * along_x, fy * along_y, (cx + 0.5 - left) * along_x - 0.5, (cy + 0.5 - top) * along_y - 0.5


def nominal_pose(config: SimulatedCameraConfig) -> Array:
    """`T_mount_camera` (4, 4) as the calibration says it: OpenCV axes, looking from `eye_m` at `target_m`."""
    eye = np.array(config.eye_m)
    forward = np.array(config.target_m) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.array(config.up))
    right /= np.linalg.norm(right)
    T_mount_camera = np.eye(4)
    T_mount_camera[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    T_mount_camera[:3, 3] = eye
    return T_mount_camera


def bump_pose(config: SimulatedCameraConfig) -> Array:
    """`T_nominal_true` (4, 4) of a bumped camera; rotation_deg is a rotation vector."""
    pose = np.eye(4)
    pose[:3, :3] = rotvec_to_matrix(np.radians(config.bump.rotation_deg))
    pose[:3, 3] = config.bump.translation_m
    return pose

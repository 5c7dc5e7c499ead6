"""Which pictures make the next cloud, and the cloud of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.cloud_ring import StampedCloud
from perception.frame import FrameStamp
from perception.frame_choice import latest_common
from perception.frame_ring import FrameRing, PublishedStamp
from perception.point_cloud import PointCloudFuser, View
from perception.pose_ring import Poses
from robot.clock import Clock

_HISTORY = 8
_AGE_WEIGHT = 0.07  # as the synchroniser's default


class DepthCamera(Protocol):
    """A camera whose full-size pictures and depth can be had."""

    @property
    def name(self) -> str:
        """Name in the station."""
        ...

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of its pictures [px]."""
        ...

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest pictures with `arrived_s <= now_s`, at most `count`, oldest first."""
        ...

    def full(self, stamp: FrameStamp, rgb_out: NDArray[np.uint8], depth_out: NDArray[np.float32]) -> bool:
        """Copy one of these pictures; False when it is there no more."""
        ...


class RingDepthCamera:
    """The pictures that a camera's process publishes."""

    def __init__(self, ring: FrameRing) -> None:
        """Read `ring`, which has to have depth and stays its maker's to close."""
        self._ring = ring
        self.name, self.full_size = ring.layout.camera, ring.layout.full

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest pictures."""
        return [stamp for stamp in self._ring.stamps(count) if stamp.arrived_s <= now_s]

    def full(self, stamp: FrameStamp, rgb_out: NDArray[np.uint8], depth_out: NDArray[np.float32]) -> bool:
        """Copy one of these pictures; False when it was written over meanwhile."""
        assert isinstance(stamp, PublishedStamp), "a stamp that `recent` did not give"
        return self._ring.full(stamp.number, rgb_out, depth_out)


class FusedView:
    """Makes a cloud of the pictures that belong together best; nothing while no new ones have come.

    Args:
        config: section of the station.
        geometry: by camera.
        cameras: with depth; each has a geometry.
        poses: where the arm was; needed where a camera is on it. Its pictures are used once the arm's pose is known
            for them.
        clock: the host's.

    Raises:
        HardwareError: a lens has distortion, and OpenCV is not installed.
    """

    def __init__(
        self,
        config: FusedViewConfig,
        geometry: Mapping[str, CameraGeometry],
        cameras: Sequence[DepthCamera],
        poses: Poses | None,
        clock: Clock,
    ) -> None:
        self._config, self._geometry, self._cameras, self._poses = config, geometry, tuple(cameras), poses
        self._clock = clock
        self._fuser = PointCloudFuser(config, geometry)
        self._fuser.prepare({camera.name: camera.full_size for camera in cameras})
        self._T_mount_camera = {name: np.array(where.T_mount_camera).reshape(4, 4) for name, where in geometry.items()}
        self._rgb = {camera.name: np.empty((*camera.full_size, 3), np.uint8) for camera in cameras}
        self._depth_m = {camera.name: np.empty(camera.full_size, np.float32) for camera in cameras}
        self._used: tuple[int, ...] = ()
        on_arm = [camera.name for camera in cameras if geometry[camera.name].mount == "tcp"]
        assert poses is not None or not on_arm, f"{on_arm} move with the arm, and its poses are not given"

    def look(self) -> StampedCloud | None:
        """Return the next cloud; None when there is nothing new, or nothing that belongs together."""
        now_s = self._clock.now_s()
        rows = []
        for camera in self._cameras:
            known_s = now_s
            if self._geometry[camera.name].mount == "tcp" and self._poses is not None:
                known_s = self._poses.newest_s
            row = [stamp for stamp in camera.recent(now_s, _HISTORY) if stamp.captured_s <= known_s]
            if not row:
                return None
            rows.append(row)
        chosen = latest_common(rows, now_s, age_weight=_AGE_WEIGHT, max_skew_s=self._config.max_skew_s)
        if chosen is None or tuple(stamp.frame_id for stamp in chosen) == self._used:
            return None
        views: dict[str, View] = {}
        for camera, stamp in zip(self._cameras, chosen, strict=True):
            name = camera.name
            T_base_mount = self._mount(name, stamp.captured_s)
            if T_base_mount is None or not camera.full(stamp, self._rgb[name], self._depth_m[name]):
                return None
            T_base_camera = T_base_mount @ self._T_mount_camera[name]
            views[name] = View(rgb=self._rgb[name], depth_m=self._depth_m[name], T_base_camera=T_base_camera)
        cloud = self._fuser.fuse(views)
        self._used = tuple(stamp.frame_id for stamp in chosen)
        return StampedCloud(
            points=cloud.points,
            count=cloud.count,
            captured_s=min(stamp.captured_s for stamp in chosen),
            newest_s=max(stamp.captured_s for stamp in chosen),
            made_s=self._clock.now_s(),
        )

    def _mount(self, name: str, captured_s: float) -> NDArray[np.float64] | None:
        """`T_base_mount` when the picture was taken; None where it is not known."""
        if self._geometry[name].mount == "base" or self._poses is None:
            return np.eye(4)
        return self._poses.at(captured_s)

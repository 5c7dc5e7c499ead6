"""RGB-D pictures of calibrated cameras to one point cloud of fixed size in the base frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.cloud_config import CameraGeometry, FusedViewConfig
from robot.errors import HardwareError

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]

COLUMNS = 6  # x, y, z [m], then red, green, blue, 0 to 1
_MIXER = np.uint32(2654435761)  # odd, so that no two cubes get the same number


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture of one camera.

    Attributes:
        rgb: shape (H, W, 3), uint8, red first.
        depth_m: shape (H, W), float32, along the optical axis [m]; 0 where nothing was measured.
        T_base_camera: pose of the camera when it was taken, (4, 4) [m].
    """

    rgb: NDArray[np.uint8]
    depth_m: Float32
    T_base_camera: Array


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A point cloud.

    Attributes:
        points: shape (N, 6), float32: x, y, z in the base frame [m], red, green, blue from 0 to 1.
        count: in how many cubes of the workspace something was seen. Where it is less than N, points repeat in order;
            where it is 0, they are NaN.
    """

    points: Float32
    count: int


class PointCloudFuser:
    """Keeps of each cube of the workspace one point that fell into it: a measured one, never a mean of two.

    Which cubes are kept where there are more than points is decided by a fixed mixing of their numbers, so that it is
    the same ones from picture to picture. Same pictures, same cloud, bit for bit.

    A mean over a cube would lie nearer to the surface with noisy depth, and off all surfaces at an edge.
    """

    def __init__(self, config: FusedViewConfig, geometry: Mapping[str, CameraGeometry]) -> None:
        self._config, self._geometry = config, geometry
        self._cells = config.cells
        self._by_cube = np.zeros(math.prod(self._cells), np.int32)  # the point that came last; what is old is not read
        self._straight: dict[str, Array] = {}  # by camera: rays in its own frame, (3, H W)
        self._rays: dict[str, tuple[Array, Float32]] = {}  # by camera: rotation, and rays under it, (3, H W)

    def prepare(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Work out where each pixel of cameras of (height, width) looks; otherwise their first picture waits for it.

        Raises:
            HardwareError: a lens has distortion, and OpenCV is not installed.
        """
        for name, size in sizes.items():
            lens = self._geometry[name].model(*size)
            try:
                self._straight[name] = lens.picture_rays()
            except HardwareError as error:
                raise HardwareError(f"camera {name!r} in the fused view: its lens ({lens.kind}) {error}") from None

    def fuse(self, views: Mapping[str, View]) -> Cloud:
        """Return the cloud of one picture of each camera; where two saw the same cube, the later one's point."""
        size, config = self._config.points, self._config
        seen = [self._seen(name, view) for name, view in views.items()]
        cubes = np.concatenate([cube for _, cube in seen]) if seen else np.zeros(0, np.int32)
        number = np.arange(len(cubes), dtype=np.int32)
        self._by_cube[cubes] = number  # of those in one cube the last one stays
        kept = np.flatnonzero(self._by_cube[cubes] == number)
        count = len(kept)
        cloud = np.full((size, COLUMNS), np.nan, np.float32)
        if count:
            mixed = cubes[kept].astype(np.uint32) * _MIXER
            if count > size:
                least = np.argpartition(mixed, size)[:size]
                kept, mixed = kept[least], mixed[least]
            kept = kept[np.argsort(mixed)]
            start, distinct = 0, np.empty((len(kept), COLUMNS), np.float32)
            for (name, view), (pixels, cube) in zip(views.items(), seen, strict=True):
                rows = np.flatnonzero((kept >= start) & (kept < start + len(cube)))
                pixel = pixels[kept[rows] - start]
                rays, depth_m = self._rotated_rays(name, view)[:, pixel], view.depth_m.reshape(-1)[pixel]
                distinct[rows, :3] = (rays * (depth_m * np.float32(config.voxel_m))).T
                distinct[rows, :3] += view.T_base_camera[:3, 3].astype(np.float32)
                distinct[rows, 3:] = view.rgb.reshape(-1, 3)[pixel] * np.float32(1.0 / 255.0)
                start += len(cube)
            cloud[...] = distinct[np.arange(size) % len(kept)]
        cloud.flags.writeable = False
        return Cloud(points=cloud, count=count)

    def _seen(self, name: str, view: View) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """The pixels that saw the workspace, and the cubes that they saw."""
        depth_m, config = view.depth_m.reshape(-1), self._config
        inside = depth_m > config.min_depth_m
        origin = (view.T_base_camera[:3, 3] - np.array(config.workspace_min_m)) / config.voxel_m
        along = self._rotated_rays(name, view) * depth_m
        for axis, first, cells in zip(along, origin, self._cells, strict=True):
            axis += np.float32(first)
            inside &= axis >= 0.0
            inside &= axis < cells
        pixels = np.flatnonzero(inside)
        x, y, z = (axis[pixels].astype(np.int32) for axis in along)
        return pixels, (x * self._cells[1] + y) * self._cells[2] + z

    def _rotated_rays(self, name: str, view: View) -> Float32:
        """Ray of each pixel in the base frame, (3, H W), in edges of a cube per metre of depth; kept while it holds."""
        R_base_camera = view.T_base_camera[:3, :3]
        kept = self._rays.get(name)
        if kept is not None and kept[1].shape[1] == view.depth_m.size and np.array_equal(kept[0], R_base_camera):
            return kept[1]
        straight = self._straight.get(name)
        if straight is None or straight.shape[1] != view.depth_m.size:
            height, width = view.depth_m.shape
            self.prepare({name: (height, width)})
            straight = self._straight[name]
        rays: Float32 = (R_base_camera @ straight / self._config.voxel_m).astype(np.float32)
        self._rays[name] = R_base_camera.copy(), rays
        return rays

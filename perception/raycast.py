"""RGB-D pictures of a MuJoCo scene by ray casting: no OpenGL, no display, no system packages.

`mj_multiRay` gives the geom, the distance and the surface normal of every pixel's ray; colour is the geom's
own under a fixed light (Lambert) with a little ambient light.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LIGHT = np.array([0.35, -0.25, 0.9]) / np.linalg.norm([0.35, -0.25, 0.9])
_AMBIENT, _DIFFUSE = 0.42, 0.58
_SKY = np.array([205, 214, 224], np.uint8)
_FAR_M = 5.0


class RayCaster:
    """A pinhole camera of fixed intrinsics, OpenCV axes (x right, y down, z forward)."""

    def __init__(self, *, height: int, width: int, fx: float, fy: float, cx: float, cy: float) -> None:
        self._shape = (height, width)
        v, u = np.mgrid[0:height, 0:width].astype(np.float64)
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], axis=-1).reshape(-1, 3)
        self._along = np.linalg.norm(rays, axis=1)  # distance along the ray per metre of depth
        self._rays = rays / self._along[:, None]
        count = len(rays)
        self._geom = np.empty(count, np.int32)
        self._distance = np.empty(count)
        self._normal = np.empty(count * 3)

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, T_world_camera: Array
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return colour (H, W, 3) uint8 and depth (H, W) float32 [m], 0 where nothing is hit."""
        directions = self._rays @ T_world_camera[:3, :3].T
        origin = T_world_camera[:3, 3]
        mujoco.mj_multiRay(
            model, data, origin, directions.ravel(), None, 1, -1, self._geom, self._distance, self._normal,
            len(directions), _FAR_M,
        )  # fmt: skip
        hit = self._geom >= 0
        normals = self._normal.reshape(-1, 3)
        shade = _AMBIENT + _DIFFUSE * np.maximum(normals @ _LIGHT, 0.0)
        colour = model.geom_rgba[self._geom, :3] * (255.0 * shade[:, None])
        rgb = np.where(hit[:, None], np.minimum(colour, 255.0).astype(np.uint8), _SKY)
        depth = np.where(hit, self._distance / self._along, 0.0).astype(np.float32)
        return rgb.reshape(*self._shape, 3), depth.reshape(self._shape)

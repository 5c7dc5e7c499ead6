#!/usr/bin/env python3
"""What the fused view costs: three 320x240 RGB-D cameras to one point cloud; prints one JSON line.

The pictures are ray-cast ones of the simulated table, from three sides, published to the rings that camera processes
write. `look_ms` is a whole look of the fused view's process: choose, copy colour and depth out of shared memory, fuse.
`fuse_ms` is the fusion alone. Of both, `p50` and `p99` are by the wall clock, which other work on the machine delays,
and `cpu` is the processor time of this process, which it does not. `loop_us` is what the loop spends on it: writing
the arm's pose and copying the newest cloud, once for each cloud (`new`) and at ticks without a new one (`same`).
`off_mm` is how far the cloud's points are from the scene that MuJoCo finds along their rays, 99th percentile: a check
that what is timed is right.

    .venv/bin/python benchmarks/bench_fused_view.py --clouds 300
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli  # noqa: F401  one thread for BLAS

import mujoco
import numpy as np

from benchmarks.machine import cpu_name
from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.cloud_ring import CloudRing
from perception.config import SimulatedCameraConfig
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from perception.fused_view import FusedView, RingDepthCamera
from perception.point_cloud import PointCloudFuser, View
from perception.pose_ring import PoseRing
from perception.raycast import RayCaster
from perception.simulated_camera import intrinsics_px, nominal_pose
from robot.clock import WallClock
from robot.simulation.world import SimulatedWorld

_EYES_M = {"front": (1.05, 0.0, 0.6), "left": (0.45, 0.75, 0.5), "right": (0.4, -0.7, 0.6)}
_TARGETS = {"look_ms.p50": 10.0}
_VIEW = FusedViewConfig(
    workspace_min_m=(0.2, -0.4, -0.012), workspace_max_m=(0.8, 0.4, 0.6), voxel_m=0.005, points=2048
)


def measure(clouds: int) -> dict[str, object]:
    """Make so many clouds; return the figures."""
    world = SimulatedWorld(start_s=0.0)
    rings, geometry, views = {}, {}, {}
    for name, eye_m in _EYES_M.items():
        config = SimulatedCameraConfig(
            kind="simulated", name=name, mount="base", eye_m=eye_m, target_m=(0.5, 0.0, 0.05), up=(0.0, 0.0, 1.0),
            height=240, width=320, vertical_fov_deg=47.0, rate_hz=30.0,
        )  # fmt: skip
        fx, fy, cx, cy = intrinsics_px(config)
        T = nominal_pose(config)
        geometry[name] = CameraGeometry(
            mount="base", T_mount_camera=tuple(T.ravel().tolist()), fx=fx, fy=fy, cx=cx, cy=cy
        )
        caster = RayCaster(height=240, width=320, fx=fx, fy=fy, cx=cx, cy=cy)
        rgb, depth_m = caster.render(world.model, world.data, T)
        views[name] = View(rgb=rgb, depth_m=depth_m, T_base_camera=T)
        rings[name] = FrameRing.new(FrameLayout.of(config, depth=True))
    fuser = PointCloudFuser(_VIEW, geometry)
    fuse_ms = _times(clouds, lambda number: fuser.fuse(views), lambda number: None)
    cloud = fuser.fuse(views)
    look = FusedView(_VIEW, geometry, [RingDepthCamera(ring) for ring in rings.values()], None, WallClock())

    def publish(number: int) -> None:
        now_s = time.monotonic()
        stamp = FrameStamp(frame_id=number, captured_s=now_s, arrived_s=now_s)
        for name, ring in rings.items():
            ring.publish(stamp, views[name].rgb, views[name].rgb, views[name].depth_m)

    def looked(number: int) -> None:
        assert look.look() is not None

    look_ms = _times(clouds, looked, publish)
    return {
        "fuse_ms": fuse_ms,
        "look_ms": look_ms,
        "loop_us": _loop_us(look, publish, clouds),
        "cubes": cloud.count,
        "points": len(cloud.points),
        "pixels": sum(view.depth_m.size for view in views.values()),
        "off_mm": _off_mm(world, cloud.points),
    }


def _times(count: int, work: Callable[[int], object], before: Callable[[int], None]) -> dict[str, float]:
    wall_ms, cpu_ms = [], []
    for number in range(count + 5):
        before(number)
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        work(number)
        cpu_ms.append((time.process_time() - begun_cpu_s) * 1e3)
        wall_ms.append((time.perf_counter() - begun_s) * 1e3)
    p50, p99 = np.percentile(wall_ms[5:], [50, 99])
    return {"p50": round(p50, 2), "p99": round(p99, 2), "cpu": round(float(np.median(cpu_ms[5:])), 2)}


def _loop_us(view: FusedView, publish: Callable[[int], None], count: int) -> dict[str, float]:
    ring, poses, pose = CloudRing.new(_VIEW.points), PoseRing.new(), np.eye(4)
    publish(10**6)
    cloud = view.look()
    assert cloud is not None
    spent: dict[str, list[float]] = {"new": [], "same": []}
    for number in range(count):
        ring.publish(replace(cloud, made_s=cloud.made_s + number))
        for kind, times_us in spent.items():
            begun_s = time.perf_counter()
            poses.write(number + 0.5 * (kind == "same"), pose)
            ring.newest()
            times_us.append((time.perf_counter() - begun_s) * 1e6)
    return {kind: round(float(np.median(times_us)), 1) for kind, times_us in spent.items()}


def _off_mm(world: SimulatedWorld, points: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """How far the first thing is from each point that a ray hits which begins 5 cm before it, 99th percentile."""
    off_m = []
    hit = np.zeros(1, np.int32)
    eyes = np.array(list(_EYES_M.values()))
    for point in points[:, :3].astype(np.float64):
        misses = []
        for eye in eyes:  # the camera that saw it is one of them
            along = (point - eye) / np.linalg.norm(point - eye)
            start = point - 0.05 * along
            misses.append(abs(mujoco.mj_ray(world.model, world.data, start, along, None, 1, -1, hit) - 0.05))
        off_m.append(min(misses))
    return round(float(np.quantile(off_m, 0.99)) * 1e3, 4)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clouds", type=int, default=300)
    options = parser.parse_args()
    print(json.dumps({"benchmark": "fused_view", "cpu": cpu_name(), "targets": _TARGETS, **measure(options.clouds)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

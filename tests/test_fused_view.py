from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.cloud_ring import CloudRing, StampedCloud
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from perception.frame_verdict import judge_cloud
from perception.fused_view import FusedView, RingDepthCamera
from perception.fused_view_process import FusedViewProcessConfig
from perception.observation import Verdict
from perception.point_cloud import PointCloudFuser, View
from perception.pose_ring import PoseRing
from robot.clock import VirtualClock
from robot.errors import HardwareError
from robot.geometry import rotvec_to_matrix
from robot.process_board import ProcessBoard

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 24, 32
DOWN = np.array([[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.8], [0.0, 0.0, 0.0, 1.0]])
VIEW = FusedViewConfig(
    workspace_min_m=(0.0, -1.0, -0.012), workspace_max_m=(1.0, 1.0, 0.5), voxel_m=0.01, points=256, rate_hz=30.0
)
Array = NDArray[np.float64]


def geometry(T: Array, mount: str = "base") -> CameraGeometry:
    return CameraGeometry.model_validate(
        {"mount": mount, "T_mount_camera": tuple(T.ravel().tolist()), "fx": 40.0, "fy": 40.0, "cx": 15.5, "cy": 11.5}
    )


GEOMETRY = {"front": geometry(DOWN), "wrist": geometry(np.eye(4), "tcp")}


def layout(name: str) -> FrameLayout:
    return FrameLayout(camera=name, image=(HEIGHT, WIDTH), full=(HEIGHT, WIDTH), depth=True)


class Rig:
    """Two cameras' rings, the arm's poses, and the view of them; the table is at z = 0."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock = VirtualClock(100.0)
        self.rings = {name: FrameRing.new(layout(name)) for name in GEOMETRY}
        self.poses = PoseRing.new()
        for part in (*self.rings.values(), self.poses):
            stack.callback(part.close)
        cameras = [RingDepthCamera(ring) for ring in self.rings.values()]
        self.view = FusedView(VIEW, GEOMETRY, cameras, self.poses, self.clock)

    def show(self, name: str, frame_id: int, captured_s: float, distance_m: float, grey: int = 100) -> None:
        """Publish a picture of a plane straight ahead, arriving 10 ms after it was taken."""
        stamp = FrameStamp(frame_id=frame_id, captured_s=captured_s, arrived_s=captured_s + 0.01)
        rgb = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
        self.rings[name].publish(stamp, rgb, rgb, np.full((HEIGHT, WIDTH), distance_m, np.float32))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


def arm_at(height_m: float, turn_rad: float = 0.0) -> Array:
    """`T_base_tcp` of a hand that looks straight down."""
    pose = DOWN.copy()
    pose[:3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, turn_rad])) @ DOWN[:3, :3]
    pose[2, 3] = height_m
    return pose


def test_pictures_of_a_camera_on_the_arm_are_where_the_arm_was_when_they_were_taken(rig: Rig) -> None:
    # the arm sinks at 0.4 m/s; half way between two ticks its camera sees the table from between the two heights
    rig.poses.write(99.9, arm_at(0.42))
    rig.poses.write(99.95, arm_at(0.40, 0.3))
    rig.show("front", 0, 99.924, 0.8)
    rig.show("wrist", 0, 99.925, 0.41)
    cloud = rig.view.look()
    assert cloud is not None
    assert cloud.count > 256
    np.testing.assert_allclose(cloud.points[:, 2], 0.0, atol=1e-6)
    assert (cloud.captured_s, cloud.newest_s, cloud.made_s) == (99.924, 99.925, 100.0)
    assert rig.view.look() is None, "nothing new has come"


def test_a_picture_waits_until_the_arms_pose_is_known_for_it(rig: Rig) -> None:
    rig.poses.write(99.9, arm_at(0.4))
    rig.show("front", 0, 99.93, 0.8)
    rig.show("wrist", 0, 99.93, 0.4)
    assert rig.view.look() is None
    rig.poses.write(99.95, arm_at(0.4))
    assert rig.view.look() is not None


def test_pictures_that_do_not_belong_together_make_no_cloud(rig: Rig) -> None:
    rig.poses.write(99.0, arm_at(0.4))
    rig.poses.write(99.99, arm_at(0.4))
    rig.show("wrist", 0, 99.80, 0.4)
    rig.show("front", 0, 99.90, 0.8)
    assert rig.view.look() is None
    rig.show("front", 1, 99.95, 0.8)
    rig.show("wrist", 1, 99.92, 0.4)
    cloud = rig.view.look()
    assert cloud is not None
    assert cloud.newest_s - cloud.captured_s <= VIEW.max_skew_s


def test_a_missing_camera_means_no_cloud(rig: Rig) -> None:
    rig.show("front", 0, 99.9, 0.8)
    assert rig.view.look() is None


def test_poses_are_known_between_the_oldest_that_is_kept_and_the_newest(rig: Rig) -> None:
    poses = rig.poses
    assert poses.newest_s == -np.inf
    assert poses.at(1.0) is None
    for tick in range(300):
        poses.write(tick * 0.05, arm_at(0.001 * tick))
    poses.write(3.0, arm_at(9.0))  # older than the newest: nothing new
    assert poses.newest_s == pytest.approx(299 * 0.05)
    for time_s in (10.0, 10.02, 14.9, 299 * 0.05):
        pose = poses.at(time_s)
        assert pose is not None
        assert pose[2, 3] == pytest.approx(0.02 * time_s)
    assert poses.at(1.0) is None
    assert poses.at(299 * 0.05 + 1e-6) is None


def cloud_of(captured_s: float) -> StampedCloud:
    points = np.random.default_rng(int(captured_s)).random((64, 6)).astype(np.float32)
    return StampedCloud(points=points, count=50, captured_s=captured_s, newest_s=captured_s, made_s=captured_s + 0.1)


def test_the_newest_cloud_comes_through_the_ring_whole_and_stays_as_it_was() -> None:
    ring = CloudRing.new(64)
    assert ring.newest() is None
    ring.publish(cloud_of(7.0))
    first = ring.newest()
    assert first is not None
    assert ring.newest() is first
    for k in range(20):
        ring.publish(cloud_of(8.0 + k))
    newest = ring.newest()
    assert newest is not None
    for got, sent in ((first, cloud_of(7.0)), (newest, cloud_of(27.0))):
        np.testing.assert_array_equal(got.points, sent.points)
        assert (got.count, got.captured_s, got.made_s) == (50, sent.captured_s, sent.made_s)
        assert not got.points.flags.writeable
    ring.close()


def test_a_ring_of_another_size_is_refused() -> None:
    ring = CloudRing.new(64)
    with pytest.raises(HardwareError, match="of another size than the station says"):
        CloudRing(os.dup(ring.file), 65)
    ring.close()


@pytest.mark.parametrize(
    ("verdict", "captured_s", "age_s", "expected"),
    [
        (Verdict.FRESH, 9.8, 0.3, Verdict.FRESH),
        (Verdict.FRESH, 9.6, 0.3, Verdict.STALE),
        (Verdict.FRESH, None, 0.3, Verdict.MISSING),
        (Verdict.FRESH, None, None, Verdict.FRESH),
        (Verdict.SKEWED, None, 0.3, Verdict.SKEWED),
    ],
)
def test_a_policy_that_needs_the_cloud_acts_on_a_fresh_one_alone(
    verdict: Verdict, captured_s: float | None, age_s: float | None, expected: Verdict
) -> None:
    assert judge_cloud(verdict, captured_s, 10.0, age_s) is expected


def test_the_process_makes_the_same_cloud_and_is_ended_by_sigterm() -> None:
    with ExitStack() as stack:
        rig, clouds, board = Rig(stack), CloudRing.new(VIEW.points), ProcessBoard.new(1)
        stack.callback(clouds.close)
        stack.callback(board.close)
        now_s = time.monotonic()
        rig.poses.write(now_s - 0.5, arm_at(0.42))
        rig.poses.write(now_s, arm_at(0.42))
        config = FusedViewProcessConfig(
            view=VIEW, geometry=GEOMETRY, layouts=tuple(ring.layout for ring in rig.rings.values())
        )
        files = [*(ring.file for ring in rig.rings.values()), clouds.file, rig.poses.file, board.file]
        frames = [str(ring.file) for ring in rig.rings.values()]
        command = [sys.executable, "-m", "perception.fused_view_process", "--config", config.model_dump_json()]
        command += ["--frames", *frames, "--clouds", str(clouds.file), "--poses", str(rig.poses.file)]
        command += ["--board", str(board.file), "--place", "0", "--parent", str(os.getpid())]
        with subprocess.Popen(command, pass_fds=files, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            try:
                rig.show("front", 0, now_s - 0.05, 0.8, grey=50)
                rig.show("wrist", 0, now_s - 0.04, 0.42, grey=200)
                deadline_s = time.monotonic() + 60.0
                while clouds.newest() is None:
                    assert time.monotonic() < deadline_s, "it never came"
                cloud = clouds.newest()
                assert cloud is not None
                process.terminate()
                assert process.wait(60.0) == 0
                assert process.stderr is not None
                assert process.stderr.read() == ""
            finally:
                process.kill()
        views = {
            name: View(
                rgb=np.full((HEIGHT, WIDTH, 3), grey, np.uint8),
                depth_m=np.full((HEIGHT, WIDTH), distance_m, np.float32),
                T_base_camera=T,
            )
            for name, grey, distance_m, T in (("front", 50, 0.8, DOWN), ("wrist", 200, 0.42, arm_at(0.42)))
        }
        expected = PointCloudFuser(VIEW, GEOMETRY).fuse(views)
        assert cloud.count == expected.count
        np.testing.assert_allclose(cloud.points, expected.points, atol=1e-6)
        assert set(np.unique(np.round(cloud.points[:, 3] * 255.0)).tolist()) == {50.0, 200.0}

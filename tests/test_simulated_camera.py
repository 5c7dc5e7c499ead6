import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.camera import Camera
from perception.config import Bump, ImageSize, SimulatedCameraConfig
from perception.policy_image import policy_image
from perception.simulated_camera import (
    SimulatedCamera,
    bump_pose,
    in_image_px,
    intrinsics_px,
    nominal_pose,
)
from robot.simulation.place_layout import PlaceLayout
from robot.simulation.place_scene import PAD_HALF_M
from robot.simulation.world import SimulatedWorld
from tests.contracts import CameraContract, newest

FRONT = SimulatedCameraConfig(
    kind="simulated", name="front", mount="base", eye_m=(0.45, 0.0, 0.9), target_m=(0.45, 0.0, 0.0), up=(1.0, 0.0, 0.0),
    height=24, width=32, vertical_fov_deg=50.0, rate_hz=20.0,
)  # fmt: skip
LAYOUT = PlaceLayout(block_xy_m=(0.45, -0.15), block_yaw_rad=0.0, pad_xy_m=(0.40, 0.12))


def config(**changes: object) -> SimulatedCameraConfig:
    return FRONT.model_copy(update=changes)


class InContract(CameraContract):
    config = FRONT

    def make(self) -> Camera:
        self.world = SimulatedWorld(start_s=self.begin_s)
        return SimulatedCamera(self.config, self.world, seed=4)

    def let_run(self, now_s: float) -> None:
        self.world.advance(now_s)


class TestSimulatedCamera(InContract):
    pass


class TestSimulatedCameraThatIsLateAndDrops(InContract):
    config = config(latency_s=0.12, jitter_s=0.07, drop_rate=0.3, rate_hz=30.0)


class TestSimulatedCameraWithASmallerImage(InContract):
    config = config(image=ImageSize(height=12, width=12))


def run(camera: SimulatedCamera, world: SimulatedWorld, ticks: int = 60) -> list[tuple[float, int, float, float]]:
    """What the newest frame was at each tick: (now, frame id, captured, arrived) [s]."""
    begin_s, seen = world.time_s, []
    with camera:
        for tick in range(ticks):
            now_s = begin_s + 0.05 * tick
            world.advance(now_s)
            frame = newest(camera, now_s)
            if frame is not None:
                seen.append((now_s, frame.frame_id, frame.captured_s, frame.arrived_s))
    return seen


def test_a_camera_of_the_loops_rate_gives_a_new_frame_just_in_time_for_each_tick() -> None:
    world = SimulatedWorld(start_s=100.0)
    seen = run(SimulatedCamera(config(latency_s=0.02), world, seed=0), world)
    assert len(seen) >= 59
    for now_s, _, captured_s, arrived_s in seen:
        assert arrived_s == pytest.approx(now_s)
        assert now_s - captured_s == pytest.approx(0.02)
    assert np.diff([frame_id for _, frame_id, _, _ in seen]).tolist() == [1] * (len(seen) - 1)


def test_jitter_delays_the_arrival_and_not_the_capture() -> None:
    world = SimulatedWorld(start_s=0.0)
    seen = run(SimulatedCamera(config(latency_s=0.02, jitter_s=0.03), world, seed=0), world)
    delays = np.array([arrived_s - captured_s for _, _, captured_s, arrived_s in seen])
    assert delays.min() >= 0.02
    assert delays.max() <= 0.05 + 1e-9
    assert np.ptp(delays) > 0.01
    captured = np.unique([captured_s for _, _, captured_s, _ in seen])
    np.testing.assert_allclose(np.diff(captured), 0.05, atol=1e-9)


def test_dropped_frames_leave_gaps_in_the_frame_ids() -> None:
    world = SimulatedWorld(start_s=0.0)
    seen = run(SimulatedCamera(config(drop_rate=0.4), world, seed=1), world, ticks=200)
    ids = sorted({frame_id for _, frame_id, _, _ in seen})
    lost = 1.0 - len(ids) / (ids[-1] - ids[0] + 1)
    assert lost == pytest.approx(0.4, abs=0.12)


def test_same_seed_gives_the_same_frames_and_another_seed_others() -> None:
    def times(seed: int) -> list[tuple[float, int, float, float]]:
        world = SimulatedWorld(start_s=0.0)
        return run(SimulatedCamera(config(jitter_s=0.05, drop_rate=0.2), world, seed=seed), world)

    assert times(1) == times(1)
    assert times(1) != times(2)


def look(config: SimulatedCameraConfig, layout: PlaceLayout = LAYOUT) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    world = SimulatedWorld(start_s=0.0)
    world.lay(layout.arrangement)
    return SimulatedCamera(config, world, seed=0).look()


def pad_centre(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean (u, v) of the blue pad's pixels [px]."""
    rows, columns = np.nonzero((rgb[..., 2].astype(int) - rgb[..., 0]) > 60)
    assert len(rows) > 10
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("pad", [(0.40, 0.12), (0.52, 0.05), (0.36, 0.18)])
def test_the_pad_is_seen_where_it_was_laid(pad: tuple[float, float]) -> None:
    # also holds the ray caster to a geom of the world body that moved after the model was compiled
    big = config(height=120, width=160)
    layout = dataclasses.replace(LAYOUT, pad_xy_m=pad)
    camera = SimulatedCamera(big, SimulatedWorld(start_s=0.0), seed=0)
    fx, fy, cx, cy = camera.intrinsics_px
    x, y, z, _ = np.linalg.inv(nominal_pose(big)) @ [*pad, 0.001, 1.0]
    expected = np.array([fx * x / z + cx, fy * y / z + cy])
    np.testing.assert_allclose(pad_centre(look(big, layout)[0]), expected, atol=0.6)
    half_px = fx * PAD_HALF_M / z
    assert half_px > 3.0


def test_depth_of_the_table_is_the_height_of_the_camera() -> None:
    _, depth_m = look(FRONT)
    assert depth_m[2, 2] == pytest.approx(0.9, abs=1e-5)


def test_a_bump_moves_the_picture_as_the_pose_says() -> None:
    big = config(height=120, width=160)
    here = pad_centre(look(big)[0])
    fx = SimulatedCamera(big, SimulatedWorld(start_s=0.0), seed=0).intrinsics_px[0]
    moved = pad_centre(look(big.model_copy(update={"bump": Bump(translation_m=(0.02, 0.0, 0.0))}))[0])
    np.testing.assert_allclose(moved - here, [-fx * 0.02 / 0.9, 0.0], atol=0.6)
    turned = pad_centre(look(big.model_copy(update={"bump": Bump(rotation_deg=(0.0, 2.0, 0.0))}))[0])
    assert (turned - here)[0] == pytest.approx(-fx * math.radians(2.0), rel=0.15)
    assert abs((turned - here)[1]) < 0.6


def test_poses_are_rigid_and_opencv_axes() -> None:
    bumped = config(bump=Bump(translation_m=(0.01, 0.0, -0.02), rotation_deg=(1.0, -2.0, 0.5)))
    for T in (nominal_pose(bumped), bump_pose(bumped)):
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(nominal_pose(FRONT)[:3, 2], [0.0, 0.0, -1.0], atol=1e-12)  # looks down
    np.testing.assert_allclose(nominal_pose(FRONT)[:3, 1], [-1.0, 0.0, 0.0], atol=1e-12)  # picture's down is -x
    np.testing.assert_array_equal(bump_pose(FRONT), np.eye(4))


def test_wrist_camera_moves_with_the_hand() -> None:
    wrist = config(mount="tcp", eye_m=(0.1, 0.0, -0.06), target_m=(0.02, 0.0, 0.05), up=(0.0, 0.0, -1.0))
    world = SimulatedWorld(start_s=0.0)
    camera = SimulatedCamera(wrist, world, seed=0)
    before = camera.look()[0]
    q_rad = world.arm_state().q_rad.copy()
    q_rad[0] += 0.3
    world.set_target(q_rad, 0.08, 0.5)
    world.advance(1.5)
    assert not np.array_equal(camera.look()[0], before)


@pytest.mark.parametrize("crop", [None, (0.2, 0.25, 0.8, 1.0)])
def test_a_point_is_seen_in_the_policys_image_where_its_intrinsics_say(
    crop: tuple[float, float, float, float] | None,
) -> None:
    small = config(height=240, width=320, image=ImageSize(height=60, width=40), crop=crop)
    rgb = np.zeros((240, 320, 3), np.uint8)
    ray = np.array([-0.08, 0.21])  # x/z and y/z
    column, row = np.array(intrinsics_px(small)[:2]) * ray + intrinsics_px(small)[2:]
    rgb[round(row) - 2 : round(row) + 3, round(column) - 2 : round(column) + 3] = 255
    image = policy_image(rgb, small.image_size, small.crop)[..., 0].astype(float)
    rows, columns = np.indices(image.shape)
    seen = np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()
    in_image = in_image_px(small, intrinsics_px(small))
    np.testing.assert_allclose(seen, np.array(in_image[:2]) * ray + in_image[2:], atol=0.3)
    assert in_image_px(FRONT, intrinsics_px(FRONT)) == intrinsics_px(FRONT)


def test_pictures_cannot_be_changed_by_who_reads_them() -> None:
    world = SimulatedWorld(start_s=0.0)
    camera = SimulatedCamera(FRONT, world, seed=0)
    with camera:
        world.advance(0.2)
        frame = newest(camera, 0.2)
    assert frame is not None
    with pytest.raises(ValueError, match="read-only"):
        frame.rgb[0, 0, 0] = 1

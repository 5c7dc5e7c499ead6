"""Clouds of ray-cast pictures against surfaces that are known in closed form."""

from __future__ import annotations

import sys

import cv2
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree

from perception.camera_model import CameraModel
from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.point_cloud import Cloud, PointCloudFuser, View
from perception.raycast import RayCaster
from robot.errors import HardwareError
from robot.geometry import rotvec_to_matrix

Array = NDArray[np.float64]
HEIGHT, WIDTH, FOCAL_PX = 120, 160, 130.0
CX, CY = (WIDTH - 1) / 2.0, (HEIGHT - 1) / 2.0
BOX_CENTRE_M, BOX_HALF_M, BOX_TURN_RAD = np.array([0.45, 0.05, 0.06]), np.array([0.05, 0.04, 0.06]), 0.4
BALL_CENTRE_M, BALL_RADIUS_M = np.array([0.55, -0.12, 0.05]), 0.05
SCENE = f"""
<mujoco>
  <worldbody>
    <geom type="plane" size="2 2 0.1" rgba="0.2 0.6 0.2 1"/>
    <geom type="box" pos="0.45 0.05 0.06" size="0.05 0.04 0.06" euler="0 0 {np.degrees(BOX_TURN_RAD)}" rgba="1 0 0 1"/>
    <geom type="sphere" pos="0.55 -0.12 0.05" size="0.05" rgba="0 0 1 1"/>
  </worldbody>
</mujoco>
"""
EYES_M = {"front": (1.1, 0.0, 0.5), "left": (0.4, 0.7, 0.5), "right": (0.3, -0.6, 0.6)}
CONFIG = FusedViewConfig(
    workspace_min_m=(0.3, -0.25, -0.012), workspace_max_m=(0.7, 0.25, 0.3), voxel_m=0.005, points=4096
)


def looking_at(eye_m: tuple[float, float, float], target_m: tuple[float, float, float] = (0.5, -0.02, 0.03)) -> Array:
    """`T_base_camera` of a camera that stands upright, OpenCV axes."""
    forward = np.array(target_m) - eye_m
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = eye_m
    return pose


def geometry(T: Array) -> CameraGeometry:
    return CameraGeometry(
        mount="base", T_mount_camera=tuple(T.ravel().tolist()), fx=FOCAL_PX, fy=FOCAL_PX, cx=CX, cy=CY
    )


POSES = {name: looking_at(eye) for name, eye in EYES_M.items()}
GEOMETRY = {name: geometry(pose) for name, pose in POSES.items()}


@pytest.fixture(scope="module")
def views() -> dict[str, View]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    caster = RayCaster(height=HEIGHT, width=WIDTH, fx=FOCAL_PX, fy=FOCAL_PX, cx=CX, cy=CY)
    found = {}
    for name, pose in POSES.items():
        rgb, depth_m = caster.render(model, data, pose)
        found[name] = View(rgb=rgb, depth_m=depth_m, T_base_camera=pose)
    return found


def fuse(views: dict[str, View], config: FusedViewConfig = CONFIG) -> Cloud:
    return PointCloudFuser(config, GEOMETRY).fuse(views)


def off_surfaces_m(points: Array) -> tuple[Array, Array, Array]:
    """How far each point is from the table, from the box and from the ball, shape (N,) each [m]."""
    c, s = np.cos(BOX_TURN_RAD), np.sin(BOX_TURN_RAD)
    local = (points - BOX_CENTRE_M) @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    beyond = np.abs(local) - BOX_HALF_M
    outside = np.linalg.norm(np.maximum(beyond, 0.0), axis=1)
    box = np.where((beyond < 0.0).all(axis=1), -beyond.max(axis=1), outside)
    ball = np.abs(np.linalg.norm(points - BALL_CENTRE_M, axis=1) - BALL_RADIUS_M)
    return np.abs(points[:, 2]), box, ball


def distinct(cloud: Cloud) -> Array:
    return cloud.points[: cloud.count].astype(np.float64)


def test_every_point_lies_on_a_surface_of_the_scene_within_a_tenth_of_a_millimetre(views: dict[str, View]) -> None:
    cloud = fuse(views)
    assert cloud.count > 4096
    assert np.min(off_surfaces_m(distinct(cloud)[:, :3]), axis=0).max() < 1e-4


def test_colours_are_those_of_the_surface_that_a_point_lies_on(views: dict[str, View]) -> None:
    points = distinct(fuse(views))
    nearest = np.argmin(off_surfaces_m(points[:, :3]), axis=0)
    for surface, colour in enumerate((1, 0, 2)):  # the table is green, the box red, the ball blue
        of_it = points[nearest == surface, 3:]
        assert len(of_it) > 50
        assert (np.argmax(of_it, axis=1) == colour).mean() > 0.99
        assert 0.0 <= of_it.min() <= of_it.max() <= 1.0


def test_all_sides_are_seen_that_any_camera_sees(views: dict[str, View]) -> None:
    # of one camera alone, a side of the box is missing
    normals = [np.array([np.cos(a), np.sin(a), 0.0]) for a in BOX_TURN_RAD + np.pi / 2.0 * np.arange(4)]

    def sides(points: Array) -> list[bool]:
        on_box = points[off_surfaces_m(points)[1] < 1e-4]
        seen = []
        for normal, half_m in zip(normals, (0.05, 0.04, 0.05, 0.04), strict=True):
            along = (on_box - BOX_CENTRE_M) @ normal
            seen.append(bool((np.abs(along - half_m) < 1e-4).sum() > 20))
        return seen

    fine = CONFIG.model_copy(update={"points": 65536})
    assert sum(sides(distinct(fuse(views, fine))[:, :3])) >= 3
    assert sum(sides(distinct(fuse({"front": views["front"]}, fine))[:, :3])) <= 2


def test_a_camera_that_was_moved_shows(views: dict[str, View]) -> None:
    moved = views["left"].T_base_camera.copy()
    moved[0, 3] += 0.005
    wrong = View(rgb=views["left"].rgb, depth_m=views["left"].depth_m, T_base_camera=moved)
    points = distinct(fuse({"left": wrong}))[:, :3]
    assert np.quantile(np.min(off_surfaces_m(points), axis=0), 0.99) > 2e-3


LENSES = [
    CameraModel(
        kind="brown", width=WIDTH, height=HEIGHT, fx=130.0, fy=131.0, cx=80.0, cy=58.0,
        distortion=(-0.3, 0.1, 0.002, -0.001, 0.0),
    ),
    CameraModel(
        kind="rational", width=WIDTH, height=HEIGHT, fx=130.0, fy=131.0, cx=80.0, cy=58.0,
        distortion=(0.5, 0.1, 0.001, -0.002, 0.01, 0.9, 0.3, 0.02),
    ),
    CameraModel(
        kind="fisheye", width=WIDTH, height=HEIGHT, fx=80.0, fy=81.0, cx=80.0, cy=58.0,
        distortion=(0.02, -0.01, 0.003, 0.0),
    ),
]  # fmt: skip


def seen_through(lens: CameraModel) -> tuple[View, Array]:
    """The table through a lens by OpenCV's own inverse of it, and the points that its pixels see, (N, 3)."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64).reshape(-1, 1, 2)
    end = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
    undistort = cv2.fisheye.undistortPoints if lens.kind == "fisheye" else cv2.undistortPoints
    rays = np.asarray(undistort(pixels, lens.matrix, np.array(lens.distortion), criteria=end)).reshape(-1, 2)
    T_base_camera = POSES["front"]
    along = np.c_[rays, np.ones(len(rays))] @ T_base_camera[:3, :3].T
    depth_m = np.where(along[:, 2] < -1e-3, -T_base_camera[2, 3] / np.minimum(along[:, 2], -1e-3), 0.0)
    view = View(
        rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        depth_m=depth_m.reshape(HEIGHT, WIDTH).astype(np.float32),
        T_base_camera=T_base_camera,
    )
    return view, T_base_camera[:3, 3] + depth_m[:, None] * along


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.kind)
def test_what_a_distorted_lens_saw_lies_where_it_is(lens: CameraModel) -> None:
    view, truth = seen_through(lens)
    T = tuple(view.T_base_camera.ravel().tolist())
    pinhole = CameraGeometry(mount="base", T_mount_camera=T, fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy)
    calibrated = pinhole.model_copy(update={"lens": lens.kind, "distortion": lens.distortion})
    off_m = {}
    for name, geometry in (("pinhole", pinhole), ("calibrated", calibrated)):
        cloud = PointCloudFuser(CONFIG, {"front": geometry}).fuse({"front": view})
        assert cloud.count > 1000
        off_m[name] = KDTree(truth).query(distinct(cloud)[:, :3])[0]
    assert off_m["calibrated"].max() < 1e-5
    assert np.quantile(off_m["pinhole"], 0.9) > 3e-3, "without its distortion it is millimetres off"


def test_where_each_pixel_looks_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[CameraModel] = []
    worked_out = CameraModel.picture_rays
    monkeypatch.setattr(CameraModel, "picture_rays", lambda self: asked.append(self) or worked_out(self))
    lens = LENSES[0]
    view, _ = seen_through(lens)
    geometry = CameraGeometry(
        mount="tcp", T_mount_camera=tuple(np.eye(4).ravel().tolist()), fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy,
        lens=lens.kind, distortion=lens.distortion,
    )  # fmt: skip
    fuser = PointCloudFuser(CONFIG, {"wrist": geometry})
    fuser.prepare({"wrist": (HEIGHT, WIDTH)})
    for turn_rad in (0.0, 0.01, 0.02):
        moved = View(rgb=view.rgb, depth_m=view.depth_m, T_base_camera=view.T_base_camera @ turned(turn_rad))
        assert fuser.fuse({"wrist": moved}).count > 1000
    assert asked == [lens]


def turned(angle_rad: float) -> Array:
    T = np.eye(4)
    T[:3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, angle_rad]))
    return T


def test_a_distorted_lens_without_opencv_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    lens = LENSES[0]
    bent = GEOMETRY["front"].model_copy(update={"lens": lens.kind, "distortion": lens.distortion})
    with pytest.raises(
        HardwareError, match=r"camera 'front' in the fused view: its lens \(brown\) needs OpenCV, which"
    ):
        PointCloudFuser(CONFIG, {"front": bent}).prepare({"front": (HEIGHT, WIDTH)})
    PointCloudFuser(CONFIG, GEOMETRY).prepare({"front": (HEIGHT, WIDTH)})


def test_pixels_where_a_lens_sees_nothing_give_no_points() -> None:
    # its picture is 90 degrees wide at 1.57 * 40 px from the middle; what is beyond is black on such a camera
    wide = CameraGeometry(
        mount="base", T_mount_camera=tuple(POSES["front"].ravel().tolist()), fx=40.0, fy=40.0, cx=CX, cy=CY,
        lens="fisheye", distortion=(0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    view = View(
        rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        depth_m=np.full((HEIGHT, WIDTH), 0.7, np.float32),
        T_base_camera=POSES["front"],
    )
    assert np.isnan(wide.model(HEIGHT, WIDTH).picture_rays()).any()
    cloud = PointCloudFuser(CONFIG, {"front": wide}).fuse({"front": view})
    assert cloud.count > 500
    assert np.isfinite(cloud.points).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lens": "brown"}, r"distortion has 0 numbers; brown takes 5 \(k1, k2, p1, p2, k3\)"),
        ({"distortion": (0.1,)}, "distortion has 1 numbers; pinhole takes none"),
        ({"lens": "thin"}, "Input should be 'pinhole'"),
    ],
)
def test_a_lens_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraGeometry.model_validate(GEOMETRY["front"].model_dump() | changes)


def test_there_is_one_point_in_a_cube_and_none_outside_of_the_workspace(views: dict[str, View]) -> None:
    cloud = fuse(views, CONFIG.model_copy(update={"points": 65536}))
    points = distinct(cloud)[:, :3]
    assert (points >= np.array(CONFIG.workspace_min_m) - 1e-6).all()
    assert (points <= np.array(CONFIG.workspace_max_m) + 1e-6).all()
    cells = np.floor((points - CONFIG.workspace_min_m) / CONFIG.voxel_m + 1e-4).astype(int)
    # rounding may put a point that lies on a face of its cube into the next one
    assert len(np.unique(cells, axis=0)) > 0.98 * cloud.count


def test_the_same_pictures_give_the_same_cloud_bit_for_bit(views: dict[str, View]) -> None:
    fuser = PointCloudFuser(CONFIG, GEOMETRY)
    first = fuser.fuse(views)
    fuser.fuse({"right": views["right"]})  # what was before makes no difference
    assert fuser.fuse(views).points.tobytes() == fuse(views).points.tobytes() == first.points.tobytes()
    assert not first.points.flags.writeable


def test_the_same_cubes_are_kept_when_a_little_of_the_picture_changes(views: dict[str, View]) -> None:
    before = fuse(views)
    depth_m = views["front"].depth_m.copy()
    depth_m[:4] = 0.0
    front = View(rgb=views["front"].rgb, depth_m=depth_m, T_base_camera=views["front"].T_base_camera)
    after = fuse(views | {"front": front})
    same = {tuple(row) for row in before.points[:, :3]} & {tuple(row) for row in after.points[:, :3]}
    assert len(same) > 0.95 * CONFIG.points


def test_fewer_cubes_than_points_repeat_in_order_and_none_at_all_is_no_number(views: dict[str, View]) -> None:
    coarse = CONFIG.model_copy(update={"voxel_m": 0.05})
    cloud = fuse(views, coarse)
    assert 0 < cloud.count < CONFIG.points
    assert len(np.unique(cloud.points, axis=0)) == cloud.count
    np.testing.assert_array_equal(cloud.points[cloud.count : 2 * cloud.count], cloud.points[: cloud.count])
    blind = {
        name: View(rgb=view.rgb, depth_m=np.zeros_like(view.depth_m), T_base_camera=view.T_base_camera)
        for name, view in views.items()
    }
    for nothing in (fuse(blind), fuse({})):
        assert nothing.count == 0
        assert np.isnan(nothing.points).all()
        assert nothing.points.shape == (CONFIG.points, 6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 10.0), st.sampled_from([0.003, 0.01, 0.1]))
def test_whatever_the_depth_the_cloud_is_finite_and_in_the_workspace(seed: int, far_m: float, voxel_m: float) -> None:
    rng = np.random.default_rng(seed)
    depth_m = (far_m * rng.random((HEIGHT, WIDTH))).astype(np.float32)
    depth_m[rng.random((HEIGHT, WIDTH)) < 0.1] = np.nan
    depth_m[rng.random((HEIGHT, WIDTH)) < 0.1] = np.inf
    view = View(rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth_m=depth_m, T_base_camera=POSES["front"])
    config = CONFIG.model_copy(update={"voxel_m": voxel_m, "points": 64})
    cloud = PointCloudFuser(config, GEOMETRY).fuse({"front": view})
    if cloud.count:
        assert np.isfinite(cloud.points).all()
        assert (cloud.points[:, :3] >= np.array(config.workspace_min_m) - 1e-5).all()
        assert (cloud.points[:, :3] <= np.array(config.workspace_max_m) + voxel_m + 1e-5).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workspace_min_m": (0.8, -0.25, 0.0)}, "must be below workspace_max_m"),
        ({"voxel_m": 0.001, "workspace_max_m": (1.3, 1.75, 0.3)}, "make voxel_m larger or the workspace smaller"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedViewConfig.model_validate(CONFIG.model_dump() | changes)

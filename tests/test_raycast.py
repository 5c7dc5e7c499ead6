import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from perception.raycast import RayCaster

HEIGHT, WIDTH, F, CX, CY = 60, 80, 70.0, 39.5, 29.5
BOX_M, HALF_M = np.array([0.10, -0.05, 0.02]), np.array([0.04, 0.03, 0.02])
SCENE = f"""<mujoco><worldbody>
  <geom name="table" type="box" size="2 2 0.05" pos="0 0 -0.05" rgba="0.5 0.5 0.5 1"/>
  <geom name="box" type="box" size="{HALF_M[0]} {HALF_M[1]} {HALF_M[2]}" pos="{BOX_M[0]} {BOX_M[1]} {BOX_M[2]}"
        rgba="1 0 0 1"/>
</worldbody></mujoco>"""
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    return model, data


def looking_down(height_m: float, tilt_rad: float = 0.0) -> Array:
    """A camera above the origin: x right along world x, y down the picture along world -y, z to the table."""
    T = np.eye(4)
    T[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_rotvec([tilt_rad, 0.3 * tilt_rad, 0.1]).as_matrix()
    T[:3, 3] = (0.0, 0.0, height_m)
    return T


def render(scene: tuple[mujoco.MjModel, mujoco.MjData], T: Array) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return RayCaster(height=HEIGHT, width=WIDTH, fx=F, fy=F, cx=CX, cy=CY).render(*scene, T)


def projected(T_world_camera: Array, p_world: Array) -> Array:
    """Pinhole projection of a point: u, v [px] and depth [m]."""
    x, y, z = np.linalg.inv(T_world_camera)[:3] @ np.append(p_world, 1.0)
    return np.array([F * x / z + CX, F * y / z + CY, z])


def is_box(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (rgb[..., 0] > 60) & (rgb[..., 1] == 0)
    return found


@pytest.mark.parametrize("tilt_rad", [0.0, 0.25])
def test_depth_of_the_table_is_measured_along_the_optical_axis(
    scene: tuple[mujoco.MjModel, mujoco.MjData], tilt_rad: float
) -> None:
    T = looking_down(0.6, tilt_rad)
    rgb, depth_m = render(scene, T)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack([(u - CX) / F, (v - CY) / F, np.ones_like(u, float)], axis=-1) @ T[:3, :3].T
    expected = -T[2, 3] / rays[..., 2]  # z = 0 plane: depth per metre of the ray's own z
    table = ~is_box(rgb)
    np.testing.assert_allclose(depth_m[table], expected[table], atol=1e-5)
    if tilt_rad == 0.0:
        np.testing.assert_allclose(depth_m[table], 0.6, atol=1e-6)  # not the longer way along the ray
    assert depth_m.dtype == np.float32
    assert rgb.dtype == np.uint8


@pytest.mark.parametrize("tilt_rad", [0.0, 0.2])
def test_a_pixel_shows_the_box_exactly_where_its_centre_meets_it(
    scene: tuple[mujoco.MjModel, mujoco.MjData], tilt_rad: float
) -> None:
    T = looking_down(0.5, tilt_rad)
    rgb, depth_m = render(scene, T)
    # the slab method, ray by ray, is the reference
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack([(u - CX) / F, (v - CY) / F, np.ones_like(u, float)], axis=-1) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        near, far = (BOX_M - HALF_M - T[:3, 3]) / rays, (BOX_M + HALF_M - T[:3, 3]) / rays
    enters, leaves = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    hit = enters < leaves - 1e-9
    assert 100 < hit.sum() < HEIGHT * WIDTH / 2
    np.testing.assert_array_equal(is_box(rgb), hit)
    np.testing.assert_allclose(depth_m[hit], enters[hit], atol=1e-5)


def test_edges_of_the_box_lie_where_the_pinhole_projects_them(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    T = looking_down(0.5)
    T[:3, :3] = np.diag([1.0, -1.0, -1.0])
    box = is_box(render(scene, T)[0])
    top = BOX_M[2] + HALF_M[2]
    # the far side of the top face bounds the picture of the box on the side away from the centre
    u, v, _ = projected(T, np.array([BOX_M[0] + HALF_M[0], BOX_M[1] - HALF_M[1], top]))
    rows, columns = np.nonzero(box)
    assert columns.max() == int(np.floor(u))
    assert rows.max() == int(np.floor(v))


def test_nothing_hit_is_sky_of_depth_zero(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    up = looking_down(0.5)
    up[:3, :3] = np.eye(3)
    rgb, depth_m = render(scene, up)
    assert not depth_m.any()
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) == 1


def test_shade_depends_on_the_side_of_a_geom(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    rgb, _ = render(scene, looking_down(0.3, 0.3))
    assert len(np.unique(rgb[is_box(rgb)][:, 0])) >= 2

"""The physics of the insertion: what slides in, what jams, what is felt of it."""

import numpy as np
import pytest

from robot.simulation.insert_layout import InsertLayout, draw_insert_layout
from robot.simulation.insert_scene import CLEARANCE_M, GRIP_ABOVE_CENTRE_M, INSERT_SCENE, PEG_HALF_M, RIM_M
from robot.simulation.insert_task import InsertTask
from robot.simulation.layout import Split
from robot.simulation.task import TaskStatus
from robot.simulation.task_config import InsertTaskConfig
from robot.simulation.task_setup import task_setup
from robot.simulation.world import SimulatedWorld
from tests.scene_bench import INSERT, INSERT_LAYOUT, Scene


def scene(layout: InsertLayout = INSERT_LAYOUT) -> Scene:
    return Scene(layout, setup=INSERT)


def tip(bench: Scene) -> np.ndarray:
    assert isinstance(bench.task, InsertTask)
    return bench.task.truth(bench.world.arm_state()).tip_m


def pushed_down(off_m: tuple[float, float]) -> tuple[Scene, TaskStatus, float]:
    """Bring the tip `off_m` beside the hole's middle over the rim and push; return scene, verdict and most force."""
    bench = scene()
    way = np.array([*INSERT_LAYOUT.socket_xy_m, RIM_M + 0.01]) + np.array([*off_m, 0.0])
    for _ in range(40):
        bench.move(np.clip(0.3 * (way - tip(bench)), -0.01, 0.01))
    most_n = 0.0
    for _ in range(80):
        bench.move(np.array([0.0, 0.0, -0.0012]))
        most_n = max(most_n, bench.world.arm_state().force_n or 0.0)
        if bench.status is not TaskStatus.RUNNING:
            break
    return bench, bench.status, most_n


def test_the_peg_hangs_in_the_closed_hand_where_the_layout_says() -> None:
    bench = scene()
    hand = bench.world.arm_state()
    along, down = INSERT_LAYOUT.slip_m
    for _ in range(20):
        bench.move(np.zeros(3))
    off_m = bench.world.object_position_m() - bench.world.arm_state().T_base_tcp[:3, 3]
    np.testing.assert_allclose(off_m, [along, 0.0, -GRIP_ABOVE_CENTRE_M - down], atol=5e-4)
    assert hand.gripper_width_m == pytest.approx(2.0 * PEG_HALF_M)
    assert bench.world.object_axis()[2] > 0.999


@pytest.mark.parametrize("index", range(4))
def test_the_expert_seats_the_peg_and_hardly_presses(index: int) -> None:
    bench = scene(draw_insert_layout(Split.TRAINING, 11, index))
    most_n = 0.0
    for _ in range(160):
        if bench.status is not TaskStatus.RUNNING:
            break
        bench.move(bench.expert().delta_m)
        most_n = max(most_n, bench.world.arm_state().force_n or 0.0)
    assert bench.status is TaskStatus.SUCCESS
    assert most_n < 15.0


@pytest.mark.parametrize("off_m", [(0.006, 0.0), (0.0, -0.006), (0.004, 0.004)])
def test_the_chamfer_leads_a_peg_in_that_comes_down_a_little_off(off_m: tuple[float, float]) -> None:
    assert np.hypot(*off_m) > 2.0 * CLEARANCE_M
    bench, status, _ = pushed_down(off_m)
    assert status is TaskStatus.SUCCESS
    assert np.abs(tip(bench)[:2] - INSERT_LAYOUT.socket_xy_m).max() < CLEARANCE_M + 0.001


@pytest.mark.parametrize("off_m", [(0.012, 0.0), (0.0, -0.012)])
def test_a_peg_on_the_rim_jams_and_slips_in_the_hand(off_m: tuple[float, float]) -> None:
    bench, status, most_n = pushed_down(off_m)
    assert status is TaskStatus.FAILURE
    assert tip(bench)[2] > RIM_M - 0.006
    assert 15.0 < most_n < 80.0


def test_a_jammed_arm_is_free_once_the_table_is_cleared() -> None:
    bench, _, _ = pushed_down((0.012, 0.0))
    assert (bench.world.arm_state().force_n or 0.0) > 5.0
    assert INSERT.cleared is not None
    bench.world.lay(INSERT.cleared)
    assert bench.world.arm_state().force_n == 0.0
    bench.move(np.zeros(3))
    assert (bench.world.arm_state().force_n or 0.0) < 1.0  # the peg's own weight on the table


def test_what_the_socket_is_made_of_is_felt() -> None:
    world = SimulatedWorld(start_s=0.0, scene=INSERT_SCENE)
    model = world.model
    socket = {model.geom(i).name for i in range(model.ngeom) if model.geom(i).bodyid[0] == model.body("target").id}
    moved, standing = INSERT_SCENE.felt
    assert set(standing) == socket | {"table"}
    assert set(moved) == {"peg", "left_finger", "right_finger"}


def test_both_tasks_draw_other_layouts_from_the_same_seed() -> None:
    config = InsertTaskConfig(kind="insert", depth_m=0.02, jam_force_n=15.0, jam_s=1.0, crash_force_n=80.0)
    setup = task_setup(config)
    assert setup.draw_layout(Split.TRAINING, 3, 4) == draw_insert_layout(Split.TRAINING, 3, 4)
    assert setup.scene is INSERT_SCENE

import dataclasses
import inspect
import itertools

import numpy as np
import pytest

from robot.arm_state import ArmState
from robot.simulation.layout import Split
from robot.simulation.place_expert import CAPTURE_M, GRASP_Z_M, HOVER_M, PlaceStyle, place_motion
from robot.simulation.place_layout import PlaceLayout, draw_place_layout
from robot.simulation.place_scene import BLOCK_HALF_M
from robot.simulation.place_task import PlaceTask, PlaceTruth
from robot.simulation.task import TaskStatus
from robot.simulation.world import SimulatedWorld
from teleop.station import load_station
from tests.filter_bench import arm_state
from tests.tiny_station import STATION

PAD = (0.45, 0.1)
TOLERANCE_M = 0.01


class StagedWorld(SimulatedWorld):
    """A world whose block is put anywhere, also where no layout would."""

    def put(self, x: float, y: float, z: float = BLOCK_HALF_M, *, up: float = 1.0, speed: float = 0.0) -> None:
        self.staged = (np.array([x, y, z]), up, speed)

    def object_position_m(self) -> np.ndarray:
        return self.staged[0]

    def object_axis(self) -> tuple[float, float, float]:
        return 0.0, 0.0, self.staged[1]

    def object_speed_m_s(self) -> float:
        return self.staged[2]


@pytest.fixture
def world() -> StagedWorld:
    world = StagedWorld(start_s=0.0)
    world.lay(PlaceLayout(block_xy_m=(0.45, -0.1), block_yaw_rad=0.0, pad_xy_m=PAD).arrangement)
    world.put(0.45, -0.1)
    return world


@pytest.fixture
def task(world: StagedWorld) -> PlaceTask:
    return PlaceTask(world, tolerance_m=TOLERANCE_M)


def hand(width_m: float = 0.08, at: tuple[float, float, float] = (0.45, 0.0, 0.2)) -> ArmState:
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = at
    return arm_state(T=T, gripper_width_m=width_m)


def lifted(world: StagedWorld, task: PlaceTask) -> None:
    world.put(0.45, 0.0, 0.1)
    assert task.status(hand(0.04, (0.45, 0.0, 0.1))) is TaskStatus.RUNNING


@pytest.mark.parametrize(
    ("off_m", "status"),
    [
        (0.0, TaskStatus.SUCCESS),
        (TOLERANCE_M - 1e-9, TaskStatus.SUCCESS),
        (TOLERANCE_M + 1e-9, TaskStatus.FAILURE),
        (0.05, TaskStatus.FAILURE),
    ],
)
def test_a_released_block_is_judged_at_the_tolerance(
    world: StagedWorld, task: PlaceTask, off_m: float, status: TaskStatus
) -> None:
    lifted(world, task)
    world.put(PAD[0] + 0.6 * off_m, PAD[1] - 0.8 * off_m)
    assert task.status(hand()) is status


def test_a_block_that_was_never_lifted_has_not_failed_yet(world: StagedWorld, task: PlaceTask) -> None:
    assert task.status(hand()) is TaskStatus.RUNNING


def test_nothing_is_judged_while_the_block_is_held_or_moves(world: StagedWorld, task: PlaceTask) -> None:
    lifted(world, task)
    world.put(*PAD)
    assert task.status(hand(0.04)) is TaskStatus.RUNNING
    world.put(*PAD, speed=0.05)
    assert task.status(hand()) is TaskStatus.RUNNING
    world.put(*PAD, BLOCK_HALF_M + 0.01)
    assert task.status(hand()) is TaskStatus.RUNNING


def test_a_tipped_block_or_one_off_the_table_is_a_failure(world: StagedWorld, task: PlaceTask) -> None:
    world.put(*PAD, up=0.5)
    assert task.status(hand()) is TaskStatus.FAILURE
    world.put(1.5, 0.0, -0.3)
    assert task.status(hand(0.04)) is TaskStatus.FAILURE


def test_reset_forgets_that_the_block_was_lifted(world: StagedWorld, task: PlaceTask) -> None:
    lifted(world, task)
    task.reset()
    world.put(0.45, -0.1)
    assert task.status(hand()) is TaskStatus.RUNNING


def test_held_means_near_and_between_the_fingers(world: StagedWorld, task: PlaceTask) -> None:
    at = (0.45, -0.1, 0.025)
    for width_m, held in ((0.04, True), (0.08, False), (0.0, False)):
        assert task.truth(hand(width_m, at)).held is held
    assert not task.truth(hand(0.04, (0.45, 0.0, 0.2))).held


def test_layouts_of_the_three_splits_are_disjoint_and_of_a_seed() -> None:
    drawn = {
        (split, seed, index): draw_place_layout(split, seed, index)
        for split in Split
        for seed in (0, 1)
        for index in range(100)
    }
    assert len({(layout.block_xy_m, layout.pad_xy_m) for layout in drawn.values()}) == len(drawn)
    for (split, seed, index), layout in itertools.islice(drawn.items(), 0, None, 37):
        assert draw_place_layout(split, seed, index) == layout
    blocks = np.array([layout.block_xy_m for layout in drawn.values()])
    pads = np.array([layout.pad_xy_m for layout in drawn.values()])
    assert (np.sign(blocks[:, 1]) == -np.sign(pads[:, 1])).all()
    assert 0.4 < (pads[:, 1] > 0.0).mean() < 0.6  # no one-sided habit serves every layout
    safety = load_station(STATION).station.safety  # the hand must get there, with some room to put itself right
    for places in (blocks, pads):
        assert (places - 0.015 > safety.workspace_min_m[:2]).all()
        assert (places + 0.015 < safety.workspace_max_m[:2]).all()


def truth(**changes: object) -> PlaceTruth:
    scene = PlaceTruth(
        block_m=np.array([0.45, -0.1, BLOCK_HALF_M]), pad_xy_m=np.array(PAD), held=False, upright=True, resting=True
    )
    return dataclasses.replace(scene, **changes)  # type: ignore[arg-type]


STYLE = PlaceStyle()


def test_expert_sees_the_scene_and_the_arm_only() -> None:
    assert list(inspect.signature(place_motion).parameters) == ["truth", "state", "style"]


def test_expert_never_exceeds_its_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        state = hand(rng.uniform(0.0, 0.08), tuple(rng.uniform([0.3, -0.2, 0.0], [0.6, 0.2, 0.3])))
        block_m = rng.uniform([0.3, -0.2, 0.02], [0.6, 0.2, 0.2])
        motion = place_motion(truth(block_m=block_m, held=bool(rng.integers(2))), state, STYLE)
        assert np.linalg.norm(motion.delta_m[:2]) <= STYLE.lateral_step_m + 1e-12
        assert -STYLE.down_step_m <= motion.delta_m[2] <= STYLE.up_step_m
        assert motion.gripper in (-1.0, 1.0)


def test_expert_goes_to_the_block_and_descends_only_above_it() -> None:
    motion = place_motion(truth(), hand(at=(0.45, 0.05, GRASP_Z_M + HOVER_M)), STYLE)
    assert motion.delta_m[1] == pytest.approx(-STYLE.lateral_step_m)
    assert motion.delta_m[2] == pytest.approx(0.0)
    above = place_motion(truth(), hand(at=(0.45, -0.1 + 0.5 * CAPTURE_M, 0.1)), STYLE)
    assert above.delta_m[2] == pytest.approx(-STYLE.down_step_m)
    assert above.gripper == 1.0


def test_expert_grasps_at_the_block_and_releases_on_the_pad() -> None:
    down = (0.45, -0.1, GRASP_Z_M + 0.001)
    assert place_motion(truth(), hand(at=down), STYLE).gripper == -1.0
    on_pad = truth(block_m=np.array([*PAD, BLOCK_HALF_M]), held=True)
    assert place_motion(on_pad, hand(0.04, (*PAD, GRASP_Z_M)), STYLE).gripper == 1.0
    carried = truth(block_m=np.array([0.45, 0.0, 0.1]), held=True)
    assert place_motion(carried, hand(0.04, (0.45, 0.0, 0.1)), STYLE).gripper == -1.0


def test_expert_opens_and_rises_when_it_closed_on_nothing() -> None:
    motion = place_motion(truth(), hand(0.0, (0.45, -0.1, 0.05)), STYLE)
    assert motion.gripper == 1.0
    assert motion.delta_m[2] > 0.0


def test_expert_leaves_upwards_once_the_block_is_placed() -> None:
    placed = truth(block_m=np.array([*PAD, BLOCK_HALF_M]))
    np.testing.assert_allclose(place_motion(placed, hand(at=(*PAD, 0.03)), STYLE).delta_m, [0.0, 0.0, STYLE.up_step_m])
    np.testing.assert_allclose(place_motion(placed, hand(at=(*PAD, 0.2)), STYLE).delta_m, np.zeros(3))

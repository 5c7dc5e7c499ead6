import dataclasses
import inspect
import itertools

import numpy as np
import pytest

from robot.arm_state import ArmState
from robot.simulation.insert_expert import InsertStyle, insert_motion
from robot.simulation.insert_layout import InsertLayout, draw_insert_layout
from robot.simulation.insert_scene import CAPTURE_M, INSERT_SCENE, PEG_HALF_LENGTH_M, PEG_HALF_M, RIM_M
from robot.simulation.insert_task import InsertTask, InsertTruth
from robot.simulation.layout import Split
from robot.simulation.task import TaskStatus
from robot.simulation.task_config import InsertTaskConfig
from robot.simulation.world import SimulatedWorld
from teleop.station import load_station
from tests.filter_bench import arm_state
from tests.tiny_station import INSERT_STATION

SOCKET = (0.45, 0.1)
CONFIG = InsertTaskConfig(kind="insert", depth_m=0.022, jam_force_n=15.0, jam_s=1.0, crash_force_n=80.0)
PERIOD_S = 0.05


class StagedWorld(SimulatedWorld):
    """A world whose peg is put anywhere, also where no layout would."""

    def put(self, off_m: float, depth_m: float, *, up: float = 1.0, speed: float = 0.0) -> None:
        """Put the tip `off_m` beside the socket's middle and `depth_m` below its rim; the peg stands upright."""
        centre = np.array([SOCKET[0] + off_m, SOCKET[1], RIM_M - depth_m + PEG_HALF_LENGTH_M])
        self.staged = (centre, up, speed)

    def object_position_m(self) -> np.ndarray:
        return self.staged[0]

    def object_axis(self) -> tuple[float, float, float]:
        return 0.0, 0.0, self.staged[1]

    def object_speed_m_s(self) -> float:
        return self.staged[2]


class Judged:
    """A task, judged tick by tick."""

    def __init__(self) -> None:
        self.world = StagedWorld(start_s=0.0, scene=INSERT_SCENE)
        self.world.lay(InsertLayout(socket_xy_m=SOCKET, slip_m=(0.0, 0.0)).arrangement)
        self.world.put(0.0, -0.05)
        self.task = InsertTask(self.world, CONFIG)
        self.now_s = 10.0

    def tick(self, *, held: bool = True, force_n: float = 0.0) -> TaskStatus:
        self.now_s += PERIOD_S
        T = np.diag([1.0, -1.0, -1.0, 1.0])
        T[:3, 3] = self.world.object_position_m() + np.array([0.0, 0.0, 0.02])
        width_m = 2.0 * PEG_HALF_M if held else 0.0
        return self.task.status(arm_state(T=T, measured_s=self.now_s, gripper_width_m=width_m, force_n=force_n))

    def ticks(self, count: int, **seen: object) -> list[TaskStatus]:
        return [self.tick(**seen) for _ in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def judged() -> Judged:
    return Judged()


@pytest.mark.parametrize("held", [True, False])
def test_a_peg_that_stands_deep_enough_is_seated_held_or_let_go_of(judged: Judged, held: bool) -> None:
    judged.world.put(0.001, CONFIG.depth_m - 1e-6)
    assert judged.tick(held=held) is TaskStatus.RUNNING
    judged.world.put(0.001, CONFIG.depth_m + 1e-6)
    assert judged.tick(held=held) is TaskStatus.SUCCESS


def test_a_peg_that_still_moves_is_not_seated_yet(judged: Judged) -> None:
    judged.world.put(0.0, 0.025, speed=0.2)
    assert judged.tick() is TaskStatus.RUNNING


def test_a_tip_below_the_rim_beside_the_hole_has_no_depth(judged: Judged) -> None:
    judged.world.put(0.05, 0.03)
    assert judged.tick() is TaskStatus.RUNNING
    assert judged.task.truth(arm_state()).depth_m == 0.0


def test_a_dropped_or_tipped_peg_is_a_failure(judged: Judged) -> None:
    assert TaskStatus.FAILURE not in judged.ticks(10, held=False)  # half a second to fall in
    assert judged.tick(held=False) is TaskStatus.FAILURE
    judged.task.reset()
    judged.world.put(0.0, -0.05, up=0.5)
    assert judged.tick() is TaskStatus.FAILURE


def test_a_peg_that_is_held_again_in_time_was_not_dropped(judged: Judged) -> None:
    for _ in range(3):
        assert TaskStatus.FAILURE not in [*judged.ticks(8, held=False), judged.tick()]


def test_pressing_for_long_is_a_jam_and_a_short_press_is_forgotten(judged: Judged) -> None:
    for _ in range(4):
        assert set(judged.ticks(15, force_n=20.0) + judged.ticks(15)) == {TaskStatus.RUNNING}
    pressed = judged.ticks(22, force_n=20.0)
    assert pressed.index(TaskStatus.FAILURE) in (19, 20)  # a second, but for rounding
    judged.task.reset()
    # it slips and grips: pressed in two ticks of three
    verdicts = [judged.tick(force_n=20.0 if tick % 3 else 0.0) for tick in range(90)]
    assert TaskStatus.FAILURE in verdicts


def test_a_crash_is_a_failure_at_once(judged: Judged) -> None:
    assert judged.tick(force_n=CONFIG.crash_force_n) is TaskStatus.RUNNING
    assert judged.tick(force_n=CONFIG.crash_force_n + 1.0) is TaskStatus.FAILURE


def test_layouts_of_the_three_splits_are_disjoint_and_of_a_seed() -> None:
    drawn = {
        (split, seed, index): draw_insert_layout(split, seed, index)
        for split in Split
        for seed in (0, 1)
        for index in range(100)
    }
    assert len({(layout.socket_xy_m, layout.slip_m) for layout in drawn.values()}) == len(drawn)
    for (split, seed, index), layout in itertools.islice(drawn.items(), 0, None, 37):
        assert draw_insert_layout(split, seed, index) == layout
    safety = load_station(INSERT_STATION).station.safety  # the hand must get there, with some room to put itself right
    sockets = np.array([layout.socket_xy_m for layout in drawn.values()])
    assert (sockets - 0.02 > safety.workspace_min_m[:2]).all()
    assert (sockets + 0.02 < safety.workspace_max_m[:2]).all()
    assert np.ptp([layout.slip_m for layout in drawn.values()], axis=0).min() > 0.009


def truth(off_m: tuple[float, float] = (0.0, 0.0), above_m: float = 0.05, depth_m: float = 0.0) -> InsertTruth:
    return InsertTruth(
        tip_m=np.array([SOCKET[0] + off_m[0], SOCKET[1] + off_m[1], RIM_M + above_m - depth_m]),
        socket_xy_m=np.array(SOCKET),
        depth_m=depth_m,
        held=True,
        upright=True,
        still=True,
    )


STYLE = InsertStyle()
HAND: ArmState = arm_state()


def test_expert_sees_the_scene_and_the_arm_only() -> None:
    assert list(inspect.signature(insert_motion).parameters) == ["truth", "state", "style"]


def test_expert_never_exceeds_its_steps_and_never_opens() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        off_m = tuple(rng.uniform(-0.2, 0.2, 2))
        motion = insert_motion(truth(off_m, rng.uniform(0.0, 0.1)), HAND, STYLE)
        assert np.linalg.norm(motion.delta_m[:2]) <= STYLE.lateral_step_m + 1e-12
        assert -STYLE.down_step_m <= motion.delta_m[2] <= STYLE.up_step_m
        assert motion.gripper == -1.0


def test_expert_goes_to_the_hole_and_enters_only_above_it() -> None:
    far = insert_motion(truth((0.1, 0.0), STYLE.hover_m), HAND, STYLE)
    assert far.delta_m == pytest.approx([-STYLE.lateral_step_m, 0.0, 0.0])
    beside = insert_motion(truth((CAPTURE_M, 0.0), 0.001), HAND, STYLE)
    assert beside.delta_m[2] > 0.0
    above = insert_motion(truth((0.5 * STYLE.ready_m, 0.0), 0.001), HAND, STYLE)
    assert above.delta_m[2] == pytest.approx(-STYLE.approach_step_m)


def test_expert_comes_down_slowly_enough_for_a_person_to_act() -> None:
    above_m, seconds = 0.03, 0.0
    while above_m > 0.0:
        above_m += insert_motion(truth(above_m=above_m), HAND, STYLE).delta_m[2]
        seconds += PERIOD_S
    assert seconds > 0.5  # the slowest reaction of a simulated person


def test_expert_gives_way_in_the_hole_and_stops_when_it_is_seated() -> None:
    off_m = (0.002, 0.0)
    inside = insert_motion(truth(off_m, 0.0, 0.01), HAND, STYLE)
    outside = insert_motion(truth(off_m, 0.01), HAND, STYLE)
    assert abs(inside.delta_m[0]) < abs(outside.delta_m[0])
    assert inside.delta_m[2] == pytest.approx(-STYLE.insert_step_m)
    assert insert_motion(truth(above_m=0.0, depth_m=STYLE.seat_m), HAND, STYLE).delta_m[2] == 0.0
    assert STYLE.seat_m > CONFIG.depth_m


def test_truth_cannot_be_changed_by_who_sees_it() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        truth().depth_m = 1.0  # type: ignore[misc]

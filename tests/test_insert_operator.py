"""The simulated person beside the insertion: the same person as at the place task, with an eye for this one."""

from __future__ import annotations

import numpy as np
import pytest

from robot.simulation.insert_layout import draw_insert_layout
from robot.simulation.insert_scene import CAPTURE_M, RIM_M
from robot.simulation.insert_task import InsertTask, InsertTruth
from robot.simulation.layout import Split
from robot.simulation.task import TaskStatus
from teleop.human_input import HumanEvent
from teleop.insert_sight import InsertWorries
from teleop.simulated_operator import OperatorTraits, SimulatedOperator
from tests.scene_bench import INSERT, INSERT_LAYOUT, PERIOD_S, SCALE_M, Scene

TRAITS, WORRIES = OperatorTraits(), InsertWorries()
DOWN = np.array([0.0, 0.0, -0.002])


def beside(scene: Scene, seed: int = 0) -> SimulatedOperator:
    """An operator who has armed the robot and laid the table."""
    assert isinstance(scene.task, InsertTask)
    operator = SimulatedOperator(scene.world, scene.task, scale_m=SCALE_M, period_s=PERIOD_S, seed=seed)
    assert operator.poll(scene.now_s).events == HumanEvent.ARM
    operator.lay_table()
    return operator


def truth(scene: Scene) -> InsertTruth:
    assert isinstance(scene.task, InsertTask)
    return scene.task.truth(scene.world.arm_state())


def beside_the_hole(off_x_m: float) -> Scene:
    """A peg 50 mm above the rim and `off_x_m` beside the hole."""
    scene = Scene(INSERT_LAYOUT, setup=INSERT)
    goal = np.array([INSERT_LAYOUT.socket_xy_m[0] + off_x_m, INSERT_LAYOUT.socket_xy_m[1], RIM_M + 0.05])
    for _ in range(40):
        scene.move(np.clip(0.3 * (goal - truth(scene).tip_m), -0.01, 0.01))
    return scene


@pytest.mark.parametrize("index", range(3))
def test_operator_lets_a_policy_that_does_well_go_on_and_labels_its_success(index: int) -> None:
    scene = Scene(draw_insert_layout(Split.TRAINING, 11, index), setup=INSERT)
    operator = beside(scene, index)
    for _ in range(200):
        command = operator.poll(scene.now_s)
        assert not command.engaged
        if command.events:
            break
        scene.move(scene.expert().delta_m)
    assert command.events == HumanEvent.SUCCESS


@pytest.mark.parametrize("seed", range(3))
def test_operator_puts_a_descent_beside_the_hole_right_and_hands_back_in_it(seed: int) -> None:
    scene = beside_the_hole(0.014)
    operator = beside(scene, seed)
    engaged, handed_back_m = [], 0.0
    for _ in range(200):
        command = operator.poll(scene.now_s)
        engaged.append(command.engaged)
        if command.events:
            break
        if command.engaged:
            scene.drive(command)
        elif not any(engaged):
            scene.move(DOWN)
        else:  # the policy does well from here on
            handed_back_m = handed_back_m or truth(scene).depth_m
            scene.move(scene.expert().delta_m)
    assert command.events == HumanEvent.SUCCESS
    assert any(engaged)
    assert 0.0 < handed_back_m < 0.02


def test_operator_reacts_late_and_not_to_what_the_chamfer_takes() -> None:
    scene = beside_the_hole(0.014)
    operator, wrong_s = beside(scene), None
    while not operator.poll(scene.now_s).engaged:
        seen = truth(scene)
        height_m = max(0.0, float(seen.tip_m[2]) - RIM_M)
        off_m = float(np.linalg.norm(seen.tip_m[:2] - seen.socket_xy_m))
        if wrong_s is None and height_m < WORRIES.watch_below_m and off_m > WORRIES.off_m + WORRIES.slack * height_m:
            wrong_s = scene.now_s
        scene.move(DOWN)
        assert scene.now_s < 60.0
    assert wrong_s is not None
    least_s, most_s = TRAITS.reaction_s
    assert least_s - PERIOD_S <= scene.now_s - wrong_s <= most_s + 2 * PERIOD_S

    scene = beside_the_hole(0.5 * WORRIES.off_m)
    assert 0.5 * WORRIES.off_m < CAPTURE_M
    operator = beside(scene)
    while scene.status is TaskStatus.RUNNING:
        assert not operator.poll(scene.now_s).engaged
        scene.move(DOWN)
    assert scene.status is TaskStatus.SUCCESS


def test_operator_takes_over_from_a_robot_that_does_nothing() -> None:
    scene = Scene(INSERT_LAYOUT, setup=INSERT)
    operator = beside(scene)
    started_s = scene.now_s
    while not operator.poll(scene.now_s).engaged:
        assert scene.now_s < started_s + 5.0
        scene.move(np.zeros(3))
    assert scene.now_s - started_s >= TRAITS.stall_s + TRAITS.reaction_s[0] - 1e-9

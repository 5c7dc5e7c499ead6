"""A mirror is the world that it mirrors, for all that look at it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from perception.config import SimulatedCameraConfig
from perception.simulated_camera import SimulatedCamera
from robot.clock import VirtualClock
from robot.errors import HardwareError
from robot.fr3 import HOME_Q_RAD
from robot.joint_stream import Reading
from robot.simulation.mirrored_world import MirroredWorld
from robot.simulation.place_layout import PlaceLayout
from robot.simulation.place_task import PlaceTask
from robot.simulation.world import SimulatedWorld
from robot.simulation.world_record import pack_world
from teleop.human_input import HumanCommand
from teleop.scripted_expert import ScriptedExpert
from teleop.simulated_operator import SimulatedOperator
from tests.scene_bench import Scene
from tests.servo_bench import Bench, Rings
from tests.test_simulated_camera import FRONT

PACKAGES = Path(__file__).parents[1]
LAYOUT = PlaceLayout(block_xy_m=(0.42, -0.1), block_yaw_rad=0.1, pad_xy_m=(0.5, 0.12))


def publish(rings: Rings, world: SimulatedWorld) -> None:
    """Put the world as it stands into the ring, as the hardware does at each step."""

    snapshot = world.snapshot()
    reading = Reading(arm=snapshot.arm, following=True, q_set_rad=tuple(HOME_Q_RAD), gripper_set_m=0.08, clears=0)
    rings.world.write(*pack_world(reading, snapshot))


def same(mirror: SimulatedWorld, world: SimulatedWorld) -> None:
    """Bit for bit."""
    assert mirror.time_s == world.time_s
    a, b = mirror.arm_state(), world.arm_state()
    for name in ("q_rad", "dq_rad_s", "T_base_tcp", "tcp_velocity"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.measured_s, a.gripper_width_m, a.force_n, a.fault) == (
        b.measured_s,
        b.gripper_width_m,
        b.force_n,
        b.fault,
    )
    np.testing.assert_array_equal(mirror.object_position_m(), world.object_position_m())
    assert (mirror.object_axis(), mirror.object_speed_m_s()) == (world.object_axis(), world.object_speed_m_s())
    np.testing.assert_array_equal(mirror.target_xy_m(), world.target_xy_m())
    for name in ("qpos", "qvel", "ctrl", "xpos", "xmat", "geom_xpos", "geom_xmat", "site_xpos"):
        np.testing.assert_array_equal(getattr(mirror.data, name), getattr(world.data, name))


def moved_world() -> SimulatedWorld:
    world = SimulatedWorld(start_s=100.0)
    world.lay(LAYOUT.arrangement)
    world.set_target(np.array(HOME_Q_RAD) + 0.1, 0.02, 100.4)
    world.advance(100.3)
    return world


def test_a_mirror_equals_its_world_at_every_instant_and_in_every_picture() -> None:
    rings, scene = Rings(), Scene(LAYOUT)
    mirror = MirroredWorld(rings.world)
    config: SimulatedCameraConfig = FRONT
    for _ in range(25):
        motion = scene.expert()
        scene.move(motion.delta_m, motion.gripper)
        publish(rings, scene.world)
        assert mirror.refresh()
        same(mirror, scene.world)
    pictures = [SimulatedCamera(config, world, seed=1).look() for world in (mirror, scene.world)]
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    np.testing.assert_array_equal(pictures[0][1], pictures[1][1])


def test_a_mirror_changes_only_when_its_world_has_gone_on() -> None:
    rings, world = Rings(), moved_world()
    mirror = MirroredWorld(rings.world)
    assert not mirror.refresh()
    publish(rings, world)
    assert mirror.refresh()
    changes, state = mirror.changes, mirror.arm_state()
    assert not mirror.refresh()
    assert mirror.changes == changes
    assert mirror.arm_state() is state


def test_a_restored_world_goes_on_with_the_same_bits() -> None:
    world, twin = moved_world(), SimulatedWorld(start_s=0.0)
    twin.restore(world.snapshot())
    for now_s in (100.35, 100.6, 101.0):
        world.advance(now_s)
        twin.advance(now_s)
        same(twin, world)


def test_those_who_watch_the_task_see_the_same_in_the_mirror() -> None:
    rings, scene = Rings(), Scene(LAYOUT)
    mirror = MirroredWorld(rings.world)
    publish(rings, scene.world)
    mirror.refresh()
    task = PlaceTask(mirror, tolerance_m=0.01)
    there = ScriptedExpert(mirror, task, scale_m=(0.02, 0.02, 0.02))
    here = ScriptedExpert(scene.world, scene.task, scale_m=(0.02, 0.02, 0.02))
    persons = [
        SimulatedOperator(world, judge, scale_m=(0.02, 0.02, 0.02), period_s=0.05, seed=3)
        for world, judge in ((mirror, task), (scene.world, scene.task))
    ]
    for one in (there, here, *persons):
        one.lay_table()
    for _ in range(160):
        command = here.poll(scene.now_s)
        one, other = (person.poll(scene.now_s) for person in persons)
        for a, b in ((there.poll(scene.now_s), command), (one, other)):
            assert isinstance(a, HumanCommand)
            assert (a.events, a.engaged, a.gripper) == (b.events, b.engaged, b.gripper)
            np.testing.assert_array_equal(a.twist, b.twist)
        scene.drive(command)
        publish(rings, scene.world)
        mirror.refresh()
        assert task.status(mirror.arm_state()) is scene.status


def test_a_mirror_moves_nothing() -> None:
    mirror = MirroredWorld(Rings().world)
    with pytest.raises(HardwareError, match="a mirror moves nothing"):
        mirror.set_target(np.array(HOME_Q_RAD), 0.04, 1.0)
    with pytest.raises(HardwareError, match="this process may only look at it"):
        mirror.lay(LAYOUT.arrangement)


def test_the_mirror_of_a_fault_shows_it() -> None:
    bench = Bench(VirtualClock(100.0))
    bench.hardware.controller.fail("reflex: contact")
    bench.clock.sleep_until(100.01)
    bench.catch_up()
    mirror = MirroredWorld(bench.rings.world)
    mirror.refresh()
    assert mirror.arm_state().fault == "reflex: contact"


def test_only_a_mirror_is_restored() -> None:
    # a restore puts the joints somewhere; the world that has the arm must get there by motion
    for package in ("robot", "perception", "teleop", "launch"):  # policy/ has no world
        for path in (PACKAGES / package).rglob("*.py"):
            calls = [
                node for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and node.attr in ("restore", "mj_setState")
            ]  # fmt: skip
            assert not calls or path.name in ("mirrored_world.py", "world.py"), path

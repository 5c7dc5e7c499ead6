"""The simulated hardware: its clock, its orders, and the controller box that stops by itself."""

from __future__ import annotations

import signal

import numpy as np

from robot.clock import VirtualClock
from robot.simulation.hardware import MOST_STEPS, SimulatedHardware
from robot.simulation.insert_layout import InsertLayout
from robot.simulation.insert_scene import INSERT_SCENE
from robot.simulation.mirrored_world import MirroredWorld
from robot.simulation.place_layout import PlaceLayout
from robot.simulation.world import TIMESTEP_S
from robot.simulation.world_record import new_world_ring, pack_arrangement, unpack_arrangement
from tests.servo_bench import Bench, Rings
from tests.servo_processes import WORLD, Processes, until

LAYOUT = PlaceLayout(block_xy_m=(0.42, -0.1), block_yaw_rad=0.1, pad_xy_m=(0.5, 0.12))


def hardware(rings: Rings, now_s: float = 100.0) -> SimulatedHardware:
    return SimulatedHardware(rings.world, rings.set_points, rings.world_orders, now_s)


def test_the_world_keeps_up_with_the_clock_and_publishes_every_step() -> None:
    rings = Rings()
    world = hardware(rings)
    for now_s in (100.0049, 100.0051, 100.02, 100.0201, 100.037):
        assert world.advance(now_s) == 0
        assert 0.0 <= now_s - world.world.time_s + 1e-9 < TIMESTEP_S + 1e-9
    assert rings.world.count == 1 + 7


def test_after_a_stall_the_world_makes_few_steps_and_keeps_to_its_grid_all_the_same() -> None:
    rings = Rings()
    world = hardware(rings)
    count = rings.world.count
    assert world.advance(100.3012) == 60 - MOST_STEPS
    assert rings.world.count == count + MOST_STEPS
    np.testing.assert_allclose(world.world.time_s, 100.3, atol=1e-9)
    assert world.advance(100.3051) == 1 - 1


def test_laying_the_table_reaches_the_world_and_every_mirror_of_it() -> None:
    rings = Rings()
    world = hardware(rings)
    loop, camera = MirroredWorld(rings.world, rings.world_orders), MirroredWorld(rings.world)
    loop.lay(LAYOUT.arrangement)
    world.advance(100.006)
    for mirror in (loop, camera):
        assert mirror.refresh()
        np.testing.assert_array_equal(mirror.target_xy_m(), LAYOUT.pad_xy_m)
        np.testing.assert_allclose(mirror.object_position_m()[:2], LAYOUT.block_xy_m, atol=1e-4)


def test_a_table_of_another_task_is_laid_and_seen_through_the_same_rings() -> None:
    rings = Rings(world=new_world_ring(INSERT_SCENE))
    world = SimulatedHardware(rings.world, rings.set_points, rings.world_orders, 100.0, scene=INSERT_SCENE)
    loop = MirroredWorld(rings.world, rings.world_orders, scene=INSERT_SCENE)
    layout = InsertLayout(socket_xy_m=(0.5, -0.1), slip_m=(0.004, 0.002))
    loop.lay(layout.arrangement)
    world.advance(100.006)
    assert loop.refresh()
    np.testing.assert_array_equal(loop.target_xy_m(), layout.socket_xy_m)
    np.testing.assert_array_equal(loop.object_position_m(), world.world.object_position_m())
    assert loop.arm_state().gripper_width_m < 0.05  # put round the peg, and told by nobody to stay closed


def test_an_arrangement_reaches_the_world_to_the_last_bit() -> None:
    for arrangement in (LAYOUT.arrangement, InsertLayout(socket_xy_m=(0.1, 0.2), slip_m=(0.3, 0.4)).arrangement):
        assert unpack_arrangement(pack_arrangement(arrangement)) == arrangement


def test_without_set_points_the_controller_brakes_by_itself_and_does_not_follow_a_jump() -> None:
    clock = VirtualClock(100.0)
    bench = Bench(clock)
    clock.sleep_until(100.02)
    bench.catch_up()
    assert bench.hardware.controller.following
    bench.servo_runs = False
    clock.sleep_until(100.02 + 0.05 + 2 * TIMESTEP_S)
    bench.catch_up()
    assert not bench.hardware.controller.following
    bench.servo_runs = True
    clock.sleep_until(clock.now_s() + 0.02)
    bench.catch_up()
    assert bench.hardware.controller.following


def test_the_world_runs_in_real_time_and_ends_when_told() -> None:
    both = Processes()
    try:
        both.start(WORLD)
        mirror = MirroredWorld(both.rings.world, both.rings.world_orders)
        mirror.refresh()
        began_s = mirror.time_s
        mirror.lay(LAYOUT.arrangement)
        until(lambda: mirror.refresh() and mirror.time_s > began_s + 0.5, "half a second of the world")
        np.testing.assert_array_equal(mirror.target_xy_m(), LAYOUT.pad_xy_m)
        steps = (mirror.time_s - began_s) / TIMESTEP_S
        np.testing.assert_allclose(steps, round(steps), atol=1e-5)
        both.process(WORLD).send_signal(signal.SIGTERM)
        assert both.process(WORLD).wait(timeout=20.0) == 0
    finally:
        both.close()

"""A simulated table under an arm that is elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot import fr3
from robot.joint_stream import Reading, SetPoint
from robot.simulation.hardware import SimulatedHardware
from robot.simulation.shadow import ShadowedStream
from robot.simulation.world_record import new_world_orders, new_world_ring
from robot.simulation.world_stream import new_set_point_ring
from tests.filter_bench import HOME_Q, arm_state

STEP_S = 0.005
STILL = (0.0,) * 7


class Elsewhere:
    """An arm whose readings a test makes."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.written: list[SetPoint] = []

    def show(self, q_rad: np.ndarray, width_m: float, measured_s: float, clears: int = 3) -> None:
        arm = arm_state(q_rad=q_rad, measured_s=measured_s, gripper_width_m=width_m)
        self.reading = Reading(
            arm=arm, following=True, q_set_rad=tuple(q_rad.tolist()), gripper_set_m=width_m, clears=clears
        )

    def read(self) -> Reading | None:
        return self.reading

    def write(self, point: SetPoint) -> None:
        self.written.append(point)


def test_a_reflex_of_the_tables_arm_stops_the_other_one_until_that_heeds_the_verb() -> None:
    arm, now_s = Elsewhere(), 100.0
    world, set_points = new_world_ring(), new_set_point_ring()
    hardware = SimulatedHardware(world, set_points, new_world_orders(), now_s, shadow=True)
    stream = ShadowedStream(arm, world, set_points)

    def faults(clears: int, steps: int = 4) -> list[str | None]:
        nonlocal now_s
        seen = []
        for _ in range(steps):
            now_s += STEP_S
            arm.show(HOME_Q, 0.06, now_s, clears)
            reading = stream.read()
            assert reading is not None
            hardware.advance(now_s + 1e-6)
            seen.append(reading.arm.fault)
        return seen

    assert faults(3) == [None] * 4
    hardware.controller.fail("arm: reflex (injected)")
    hardware.advance(now_s + STEP_S)
    assert faults(3) == ["arm: reflex (injected)"] * 4
    assert faults(4) == [None] * 4  # not for a moment more, or the servo would latch anew
    assert hardware.controller.fault is None
    hardware.controller.fail("arm: reflex (injected)")
    assert faults(4)[-1] == "arm: reflex (injected)"  # another one is a fault again


def test_the_tables_arm_goes_where_the_other_one_is_and_its_block_stops_the_fingers() -> None:
    arm, now_s = Elsewhere(), 100.0
    world, set_points = new_world_ring(), new_set_point_ring()
    hardware = SimulatedHardware(world, set_points, new_world_orders(), now_s, shadow=True)
    stream = ShadowedStream(arm, world, set_points)
    assert stream.read() is None
    there = HOME_Q + np.array([0.2, 0.1, 0.0, -0.1, 0.0, 0.1, 0.3])
    for i in range(400):
        now_s += STEP_S
        arm.show(HOME_Q + min(1.0, i / 200) * (there - HOME_Q), 0.06, now_s)
        reading = stream.read()
        hardware.advance(now_s + 1e-6)
    np.testing.assert_allclose(hardware.world.arm_state().q_rad, there, atol=0.02)
    assert reading is not None
    np.testing.assert_array_equal(reading.arm.q_rad, there)  # and of the arm nothing is made up but for the fingers
    assert reading.clears == 3

    # fingers that close in the air there, but stand at the block on the table, are as wide as the block
    tables = hardware.world.arm_state().gripper_width_m
    arm.show(there, 0.0, now_s + STEP_S)
    reading = stream.read()
    assert reading is not None
    assert reading.arm.gripper_width_m == tables
    point = SetPoint(
        time_s=now_s,
        q_rad=tuple(fr3.HOME_Q_RAD),
        dq_rad_s=STILL,
        ddq_rad_s2=STILL,
        gripper_width_m=0.03,
        clears=4,
    )
    stream.write(replace(point))
    assert arm.written == [point]

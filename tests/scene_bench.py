"""The simulated scene with a hand that goes where it is told, for tests of those who watch or drive it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot.fr3 import FR3Kinematics
from robot.simulation.expert import expert_motion
from robot.simulation.insert_layout import InsertLayout
from robot.simulation.layout import Layout
from robot.simulation.motion import Motion
from robot.simulation.place_layout import PlaceLayout
from robot.simulation.task import TaskStatus
from robot.simulation.task_config import InsertTaskConfig, PlaceTaskConfig
from robot.simulation.task_setup import TaskSetup, task_setup
from robot.simulation.world import SimulatedWorld
from teleop.human_input import HumanCommand

PERIOD_S = 0.05
SCALE_M = (0.02, 0.02, 0.02)
LAYOUT = PlaceLayout(block_xy_m=(0.45, -0.10), block_yaw_rad=0.0, pad_xy_m=(0.45, 0.10))
INSERT_LAYOUT = InsertLayout(socket_xy_m=(0.48, 0.08), slip_m=(0.003, -0.002))
KINEMATICS = FR3Kinematics()
PLACE = task_setup(PlaceTaskConfig(kind="place", tolerance_m=0.01))
INSERT = task_setup(InsertTaskConfig(kind="insert", depth_m=0.022, jam_force_n=15.0, jam_s=1.0, crash_force_n=80.0))


class Scene:
    """World, task and clock; `move` is one tick of an arm without a safety filter."""

    def __init__(self, layout: Layout = LAYOUT, *, start_s: float = 0.0, setup: TaskSetup = PLACE) -> None:
        self.world = SimulatedWorld(start_s=start_s, scene=setup.scene)
        self.task = setup.task(self.world)
        self._closed = setup.begins_closed
        self.now_s = start_s
        self.T = self.world.arm_state().T_base_tcp.copy()
        self.q_rad = self.world.arm_state().q_rad
        if self._closed:
            self.go(0.45, 0.0, 0.20)
        self.lay(layout)

    def lay(self, layout: Layout) -> None:
        """Lay the table and forget the last episode."""
        self.world.lay(layout.arrangement)
        self.task.reset()

    def move(self, delta_m: NDArray[np.float64], gripper: float | None = None) -> None:
        """Go on by `delta_m` [m] in one tick, with the hand as the task begins where nothing is said of it."""
        if gripper is None:
            gripper = -1.0 if self._closed else 1.0
        self.T[:3, 3] += delta_m
        q_rad = KINEMATICS.solve(self.T, self.q_rad)
        assert q_rad is not None
        self.q_rad = q_rad
        self.now_s += PERIOD_S
        self.world.set_target(q_rad, 0.08 if gripper > 0.0 else 0.0, self.now_s)
        self.world.advance(self.now_s)

    def go(self, x: float, y: float, z: float) -> None:
        """Go to a place in steps of at most 15 mm."""
        way = np.array([x, y, z]) - self.T[:3, 3]
        steps = max(1, int(np.ceil(np.linalg.norm(way) / 0.015)))
        for _ in range(steps):
            self.move(way / steps)
        for _ in range(6):
            self.move(np.zeros(3))

    def expert(self) -> Motion:
        """What the expert does now."""
        state = self.world.arm_state()
        return expert_motion(self.task, state)

    def drive(self, command: HumanCommand) -> None:
        """One tick by a person's command."""
        self.move(command.twist[:3] * SCALE_M, command.gripper)

    @property
    def status(self) -> TaskStatus:
        """Where the task stands."""
        return self.task.status(self.world.arm_state())

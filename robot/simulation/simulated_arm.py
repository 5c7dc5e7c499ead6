"""The simulated station's arm: an arm driver over the physics, in step with the loop's clock."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from robot.simulation.world import SimulatedWorld


class SimulatedArm:
    """Follows safe commands by position servos; the world moves to the clock's time whenever it is asked."""

    joint_count = 7
    open_loop = False

    def __init__(self, world: SimulatedWorld, clock: Clock) -> None:
        self._world, self._clock = world, clock
        self._fault: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold()

    def state(self) -> ArmState:
        """State of the arm at the clock's time."""
        self._world.advance(self._clock.now_s())
        return self._world.arm_state(self._fault)

    def send(self, command: SafeCommand) -> None:
        """Ramp to the command's joints by its due time. Raises TypeError for anything but a SafeCommand."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"an arm accepts a SafeCommand only, got {type(command).__name__}; use robot.safety.step")
        if self._fault is None:
            self._world.set_target(command.q_rad, command.gripper_width_m, command.due_s)

    def hold(self) -> None:
        """Keep the last safe target; the filter has braked to it already."""

    def clear_fault(self) -> None:
        """Forget a fault; for the person's arm verb only."""
        self._fault = None

    def fail(self, fault: str) -> None:
        """Raise a fault as a real arm's reflex would: it stops where it is and refuses until cleared."""
        self._fault = fault
        here = self._world.arm_state(fault)
        self._world.set_target(np.asarray(here.q_rad), here.gripper_width_m, here.measured_s)

"""The interface of the last gate before an arm: pure, so that a replay recomputes it."""

from __future__ import annotations

from typing import Protocol

from robot.arm_state import ArmState, Array
from robot.command import Command, Hold, SafeCommand
from robot.filter_state import FilterState


class SafetyGate(Protocol):
    """What the loop asks of a `robot.safety.SafetyFilter` and of what takes its place where actions are no motion."""

    @property
    def home_axis(self) -> Array | None:
        """The tool's z axis at home, a unit vector in the base frame, (3,); None where actions are no motion."""
        ...

    def start(self, arm_state: ArmState) -> FilterState:
        """Return the state at the measured arm, latched. Raises HardwareError when that cannot be used."""
        ...

    def rearm(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Unlatch for the person's arm verb, unless the reason is still there."""
        ...

    def anchored(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Return the state as the arm is measured, for one that plays a recording."""
        ...

    def step(
        self, state: FilterState, arm_state: ArmState, command: Command | None
    ) -> tuple[FilterState, SafeCommand | Hold]:
        """Return the next state and what to send; None slows down and holds."""
        ...

"""What a person who knows a task makes of its scene: the part of a simulated person that is the task's own."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.motion import Motion

Truth = TypeVar("Truth")


class SeenArm(Protocol):
    """What an arm is in, as somebody sees it who stands beside it."""

    def arm_state(self) -> ArmState:
        """Return the arm's state as it is now."""
        ...


class TaskSight(Protocol[Truth]):
    """The eye of one who watches a task and could do it themselves."""

    def look(self, state: ArmState) -> Truth:
        """Return the scene as it is now."""
        ...

    def stage(self, truth: Truth) -> int:
        """Return the part of the task that is being done; 0 at first."""
        ...

    def distance_m(self, truth: Truth, state: ArmState) -> float:
        """Return how far the goal of this stage is [m]."""
        ...

    def off_target(self, truth: Truth, state: ArmState, *, descending: bool) -> bool:
        """Return whether this is about to miss; `descending` while the hand comes down."""
        ...

    def settled(self, truth: Truth, state: ArmState, stage: int) -> bool:
        """Return whether a matter is put right that was taken in hand in `stage`."""
        ...

    def motion(self, truth: Truth, state: ArmState, off_m: NDArray[np.float64]) -> Motion:
        """Return what they would do now, misjudging where the goal is by `off_m`, shape (2,) [m]."""
        ...

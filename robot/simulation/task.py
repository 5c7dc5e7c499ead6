"""What is the same for every simulated task: how it is judged, and that it is looked at once a tick."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from robot.arm_state import ArmState
from robot.simulation.world import SimulatedWorld

Truth = TypeVar("Truth")


class TaskStatus(enum.Enum):
    """Where a task stands."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"


class SimulatedTask(Protocol):
    """A judge that knows the scene's truth."""

    def reset(self) -> None:
        """Forget the last episode; call after the table was laid."""
        ...

    def status(self, state: ArmState) -> TaskStatus:
        """Judge the scene; call once per tick."""
        ...


class Look(Generic[Truth]):
    """The scene as a person beside the arm sees it; judge and person ask for it in the same tick.

    Args:
        world: that is looked at.
        look: makes the truth of the world as it stands.
    """

    def __init__(self, world: SimulatedWorld, look: Callable[[ArmState], Truth]) -> None:
        self._world, self._look = world, look
        self._seen: tuple[ArmState, int, Truth] | None = None  # for this state and change of the world

    def __call__(self, state: ArmState) -> Truth:
        """Return the truth of the scene as it is now."""
        if self._seen is None or self._seen[0] is not state or self._seen[1] != self._world.changes:
            self._seen = state, self._world.changes, self._look(state)
        return self._seen[2]

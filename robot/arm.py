"""The interface every arm driver has."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from robot.arm_state import ArmState
from robot.command import SafeCommand


class Arm(Protocol):
    """A robot arm with a gripper. Entering connects and takes the arm's lock; leaving stops it.

    Constructors do no I/O. `state` and `send` never block longer than a fraction of a tick.
    """

    @property
    def joint_count(self) -> int:
        """Number of joints, 0 for an arm that is known by its TCP pose only."""
        ...

    @property
    def open_loop(self) -> bool:
        """True when the arm plays a recording and does not follow commands (episodes are marked so)."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def state(self) -> ArmState:
        """Return the latest state. Raises HardwareError when there is none fresh enough."""
        ...

    def send(self, command: SafeCommand) -> None:
        """Follow `command` from now on. Raises HardwareError when the arm refuses."""
        ...

    def hold(self) -> None:
        """Slow down and keep the last safe target."""
        ...

    def clear_fault(self) -> None:
        """Clear a latched fault. Called for the person's arm verb only, never by code on its own."""
        ...

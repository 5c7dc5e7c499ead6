"""Nobody at the robot: arms when whoever started the run asks for it, and never interferes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from teleop.human_input import HumanCommand, HumanEvent


class Unattended:
    """For simulation, replays and evaluation. A run with it on a real arm has nobody to stop the arm."""

    def __init__(self) -> None:
        self._arms = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def arm(self) -> None:
        """Arm again at the next poll."""
        self._arms = True

    def poll(self, now_s: float) -> HumanCommand:
        """Arm at the first call and after `arm`, then nothing."""
        events = HumanEvent.ARM if self._arms else HumanEvent.NONE
        self._arms = False
        return HumanCommand(events=events, polled_s=now_s)

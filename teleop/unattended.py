"""Nobody at the robot: arms once, as whoever started the run asked for, and never interferes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from teleop.human_input import HumanCommand, HumanEvent


class Unattended:
    """For simulation, replays and evaluation. A run with it on a real arm has nobody to stop the arm."""

    def __init__(self) -> None:
        self._armed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def poll(self, now_s: float) -> HumanCommand:
        """Arm at the first call, then nothing."""
        events = HumanEvent.NONE if self._armed else HumanEvent.ARM
        self._armed = True
        return HumanCommand(events=events, polled_s=now_s)

"""The operator's window: pumps the device's events at every poll, shows the newest status when there is time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_status import OperatorStatus
from teleop.sdl import close_display, open_display, pygame
from teleop.window_drawing import SIZE, StatusPainter

MAX_RATE_HZ = 30.0


class EventDevice(Protocol):
    """A device that SDL speaks for; it lives within an open window and sees every event of its queue."""

    @property
    def name(self) -> str:
        """What the person calls it."""
        ...

    @property
    def lost_cure(self) -> str:
        """How the person brings it back."""
        ...

    @property
    def verbs(self) -> Mapping[str, str]:
        """How each verb is given, such as "arm" -> "Start"."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from others of its kind once it was opened, empty where nothing does."""
        ...

    def open(self) -> None:
        """Take the device; the window is open."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def handle(self, event: pygame.event.Event) -> None:
        """Take in one event, possibly of another device."""
        ...

    def read(self, now_s: float) -> HumanCommand:
        """Return what the person wants now and clear the latched edges."""
        ...


class OperatorWindow:
    """A gamepad or the keyboard as `HumanInput`, with the window that belongs to it.

    One thread, of `teleop.operator_process`, enters it, polls it and shows statuses, because SDL allows no other.
    `poll` only empties SDL's queue. `show` draws the latest status, at most `MAX_RATE_HZ` times a second; others
    are dropped.
    """

    def __init__(self, device: EventDevice, *, title: str = "Handrail") -> None:
        self._device = device
        self._title = title
        self._painter: StatusPainter | None = None
        self._shown_s = -math.inf

    def __enter__(self) -> Self:
        """Open the window and the device.

        Raises:
            BadInputError: no display, or the device is not there.
        """
        surface = open_display(SIZE, self._title)
        try:
            self._device.open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        device = self._device
        self._painter = StatusPainter(surface, device=device.name, lost_cure=device.lost_cure, verbs=device.verbs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.close()
        self._painter = None
        close_display()

    def poll(self, now_s: float) -> HumanCommand:
        """Return what the person wants now; closing the window gives QUIT."""
        closed = HumanEvent.NONE
        for event in pygame.event.get():
            if event.type in (pygame.QUIT, pygame.WINDOWCLOSE):
                closed = HumanEvent.QUIT
            self._device.handle(event)
        command = self._device.read(now_s)
        return replace(command, events=command.events | closed)

    def show(self, status: OperatorStatus, *, now_s: float) -> bool:
        """Draw the status if it is due; return whether it was.

        Args:
            status: of this tick.
            now_s: host monotonic clock [s].
        """
        assert self._painter is not None, "show() needs an open window"
        if now_s - self._shown_s < 1.0 / MAX_RATE_HZ:
            return False
        self._shown_s = now_s
        self._painter.draw(status)
        pygame.display.flip()
        return True

"""The operator's window: pumps the device's events every tick, shows the tick when there is time for it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_status import OperatorStatus
from teleop.sdl import close_display, open_display, pygame
from teleop.window_drawing import SIZE, StatusPainter

MAX_RATE_HZ = 30.0
# Also shown at this interval when ticks leave no time, so that a busy loop still shows who drives [s].
LONGEST_GAP_S = 0.5


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

    One thread, the loop's, enters it, polls it at every tick and shows statuses, because SDL allows no other.
    `poll` only empties SDL's queue. `show` draws the latest status, at most `MAX_RATE_HZ` times a second and only
    when it fits into the time that the tick has left; other statuses are dropped.
    """

    def __init__(self, device: EventDevice, *, title: str = "Handrail") -> None:
        self._device = device
        self._title = title
        self._painter: StatusPainter | None = None
        self._shown_s = -math.inf
        self._cost_s = 0.0

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

    def show(self, status: OperatorStatus, *, now_s: float, slack_s: float = math.inf) -> bool:
        """Draw the status if it is due and there is time.

        Args:
            status: of this tick.
            now_s: host monotonic clock [s].
            slack_s: time until the next tick starts [s].

        Returns:
            Whether it was drawn.
        """
        assert self._painter is not None, "show() needs an open window"
        since_s = now_s - self._shown_s
        if since_s < 1.0 / MAX_RATE_HZ or (slack_s < self._cost_s and since_s < LONGEST_GAP_S):
            return False
        self._shown_s = now_s
        started_s = time.perf_counter()
        self._painter.draw(status)
        pygame.display.flip()
        spent_s = time.perf_counter() - started_s
        # Rises at once and falls slowly: one slow picture makes the next ones wait for more slack.
        self._cost_s = max(spent_s, 0.9 * self._cost_s)
        return True

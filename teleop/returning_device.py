"""A device that is looked for until it is there."""

from __future__ import annotations

from collections.abc import Mapping

from robot.errors import BadInputError
from teleop.human_input import HumanCommand
from teleop.sdl import pygame
from teleop.window import EventDevice

_LOOK_EVERY_S = 0.5


class ReturningDevice:
    """Wraps a device so that a window which was opened again can wait for it, and so that it can be made to be gone.

    The person supervises with the same device as before: one that is not there counts as unplugged, and opening it
    later asks for a new press of the drive button, as the device itself does after it was plugged in.
    """

    def __init__(self, device: EventDevice, *, required: bool) -> None:
        """Args: `required` refuses a device that is not there at the start, instead of waiting for it."""
        self._device, self._required = device, required
        self._open = self._hidden = False
        self._look_again_s = 0.0
        self.name, self.lost_cure = device.name, device.lost_cure
        self.verbs: Mapping[str, str] = device.verbs

    @property
    def identity(self) -> str:
        """What tells it from others of its kind, empty where nothing does."""
        return self._device.identity

    def open(self) -> None:
        """Take the device. Raises BadInputError when it is not there and required."""
        try:
            self._device.open()
            self._open = True
        except BadInputError:
            if self._required:
                raise

    def close(self) -> None:
        """Let go of it."""
        self._open = False
        self._device.close()

    def hide(self, hidden: bool) -> None:
        """Let the device seem unplugged for as long as that is said."""
        if hidden and not self._hidden:
            self.close()
        self._hidden, self._required = hidden, self._required and not hidden

    def handle(self, event: pygame.event.Event) -> None:
        """Take in one SDL event."""
        if self._open:
            self._device.handle(event)

    def read(self, now_s: float) -> HumanCommand:
        """Return what the person wants now; not connected while the device is not there."""
        if not self._open and not self._hidden and now_s >= self._look_again_s:
            self._look_again_s = now_s + _LOOK_EVERY_S
            self.open()
        if not self._open:
            return HumanCommand(polled_s=now_s, connected=False)
        return self._device.read(now_s)

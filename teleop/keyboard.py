"""Keyboard of the operator window."""

from __future__ import annotations

import math
from collections.abc import Mapping

from teleop.deadman import Deadman
from teleop.device_config import KeyboardConfig
from teleop.gripper_wish import CLOSE, OPEN, GripperWish
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_messages import merged
from teleop.sdl import pygame
from teleop.stick import twist_base

__all__ = ["Keyboard", "KeyboardConfig"]

_EVENTS = {
    pygame.K_RETURN: HumanEvent.SUCCESS,
    pygame.K_BACKSPACE: HumanEvent.FAILURE,
    pygame.K_x: HumanEvent.RERECORD,
    pygame.K_h: HumanEvent.HOLD,
    pygame.K_F1: HumanEvent.ARM,  # not Tab, which Alt+Tab sends before the focus goes
    pygame.K_ESCAPE: HumanEvent.STOP,
}
_DRIVE = pygame.K_SPACE
_GRIPPER = {pygame.K_o: CLOSE, pygame.K_p: OPEN}
# Those of the window manager's shortcuts, which must not label an episode.
_SHORTCUT = pygame.KMOD_CTRL | pygame.KMOD_ALT | pygame.KMOD_META


class Keyboard:
    """The supervising keyboard. `OperatorWindow` feeds it SDL's events and reads it at every poll.

    It supervises only while the window has the focus: without it nobody could stop, which counts as unplugged, and
    every key is let go.
    """

    name = "keyboard"
    identity = ""
    lost_cure = "click on this window"
    verbs: Mapping[str, str] = {
        "drive": "hold Space",
        "move": "W A S D",
        "up, down": "R F",
        "turn": "Q E",
        "close gripper": "O",
        "open gripper": "P",
        "success": "Enter",
        "failure": "Backspace",
        "rerecord": "X",
        "hold": "H",
        "arm": "F1",
        "stop": "Escape",
    }

    def __init__(self, config: KeyboardConfig | None = None, *, silence_s: float = math.inf) -> None:
        """Args: `silence_s` as of `Deadman` [s]."""
        self._config = config or KeyboardConfig()
        self._focused = False
        self._down: set[int] = set()
        self._events = HumanEvent.NONE
        self._deadman = Deadman(silence_s=silence_s)
        self._gripper = GripperWish()

    def open(self) -> None:
        """Start listening; the window must be open."""
        self._focused = bool(pygame.key.get_focused())

    def close(self) -> None:
        """Let go of every key."""
        self._lose_focus()

    def handle(self, event: pygame.event.Event) -> None:
        """Take in one SDL event."""
        if event.type == pygame.WINDOWFOCUSGAINED:
            self._focused = True
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._lose_focus()
        elif event.type == pygame.KEYUP:
            self._down.discard(event.key)
        elif event.type == pygame.KEYDOWN and event.key not in self._down:
            self._press(event)

    def read(self, now_s: float) -> HumanCommand:
        """Return what the person wants now and clear the latched edges."""
        events, self._events = self._events, HumanEvent.NONE
        engaged = self._deadman.update(present=self._focused, pressed=_DRIVE in self._down, now_s=now_s)
        if not self._deadman.settled or HumanEvent.STOP in events:
            events &= HumanEvent.STOP  # a stop is believed at once and outdoes whatever else was pressed
        held = [wish for key, wish in _GRIPPER.items() if key in self._down]
        gripper = self._gripper.update(engaged=engaged, held=held[0] if len(held) == 1 else None)
        if not engaged:
            return HumanCommand(events=events, polled_s=now_s, connected=self._focused)
        twist = twist_base(
            forward=self._axis(pygame.K_w, pygame.K_s),
            left=self._axis(pygame.K_a, pygame.K_d),
            up=self._axis(pygame.K_r, pygame.K_f),
            turn=self._axis(pygame.K_q, pygame.K_e),
            view_yaw_rad=self._config.view_yaw_rad,
            speed_share=self._config.speed_share,
        )
        return HumanCommand(twist=twist, gripper=gripper, engaged=True, events=events, polled_s=now_s)

    def _axis(self, positive: int, negative: int) -> float:
        return float((positive in self._down) - (negative in self._down))

    def _press(self, event: pygame.event.Event) -> None:
        self._down.add(event.key)
        pressed = _EVENTS.get(event.key, HumanEvent.NONE)
        if pressed is HumanEvent.STOP or not event.mod & _SHORTCUT:
            self._events = merged(self._events, pressed)
        if event.key in _GRIPPER:
            self._gripper.ask(_GRIPPER[event.key])

    def _lose_focus(self) -> None:
        self._focused = False
        self._down.clear()
        self._deadman.lost()

"""Gamepad by SDL's standard controller mapping: the same names on every pad."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robot.errors import BadInputError
from teleop.deadman import Deadman
from teleop.device_config import GamepadConfig
from teleop.gripper_wish import CLOSE, OPEN, GripperWish
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_messages import merged
from teleop.sdl import controller, pygame
from teleop.stick import shaped, twist_base

__all__ = ["Gamepad", "GamepadConfig"]

_EVENTS = {
    pygame.CONTROLLER_BUTTON_Y: HumanEvent.SUCCESS,
    pygame.CONTROLLER_BUTTON_A: HumanEvent.FAILURE,
    pygame.CONTROLLER_BUTTON_X: HumanEvent.RERECORD,
    pygame.CONTROLLER_BUTTON_B: HumanEvent.HOLD,
    pygame.CONTROLLER_BUTTON_START: HumanEvent.ARM,
    pygame.CONTROLLER_BUTTON_BACK: HumanEvent.STOP,
}
_TRIGGERS = {pygame.CONTROLLER_AXIS_TRIGGERLEFT: CLOSE, pygame.CONTROLLER_AXIS_TRIGGERRIGHT: OPEN}
_NEEDED = ("a", "b", "x", "y", "back", "start", "rightshoulder", "leftx", "lefty", "rightx", "righty")
_FULL = 32767.0
# Until its first report SDL takes some triggers for half pulled (0.49998), so pulled lies well above that.
_PULLED, _LET_GO = 0.6, 0.4


class Gamepad:
    """The supervising pad. `OperatorWindow` opens it, feeds it SDL's events and reads it at every poll.

    Edges come from events, so that a tap shorter than a tick counts; the drive button and the sticks come from the
    pad's present state, so that a lost release event cannot leave the arm driving.

    After an unplug only a pad of the same model (GUID) takes over again: another one that happens to be plugged in
    may lie in nobody's hand.
    """

    name = "gamepad"
    lost_cure = "plug it in again"
    verbs: Mapping[str, str] = {
        "drive": "hold RB",
        "move": "left stick",
        "up, down, turn": "right stick",
        "close gripper": "left trigger",
        "open gripper": "right trigger",
        "success": "Y",
        "failure": "A",
        "rerecord": "X",
        "hold": "B",
        "arm": "Start",
        "stop": "Back",
    }

    def __init__(self, config: GamepadConfig | None = None, *, silence_s: float = math.inf) -> None:
        """Args: `silence_s` as of `Deadman` [s]."""
        self._config = config or GamepadConfig()
        self._pad: controller.Controller | None = None
        self._guid = ""
        self._instance = -1  # Controller.id is the device index at first and after some replugs, so not that
        self._events = HumanEvent.NONE
        self._pulled: set[int] = set()
        self._deadman = Deadman(silence_s=silence_s)
        self._gripper = GripperWish()

    @property
    def identity(self) -> str:
        """SDL's GUID of the pad's model; as `GamepadConfig.pad` it has no other one taken."""
        return self._guid

    def open(self) -> None:
        """Take the pad.

        Raises:
            BadInputError: no pad fits, or it lacks a button or stick that supervising needs.
        """
        controller.init()
        pygame.event.pump()
        seen = []
        for index in range(controller.get_count()):
            if not controller.is_controller(index):
                seen.append(f"joystick {index} without SDL mapping")
                continue
            pad = controller.Controller(index)
            if self._fits(pad):
                self._take(pad)
                return
            seen.append(f"{pad.name!r} ({pad.as_joystick().get_guid()})")
            pad.quit()
        controller.quit()
        wanted = "any gamepad" if self._config.pad is None else f"one whose name or GUID fits {self._config.pad!r}"
        raise BadInputError(
            f"gamepad: none to supervise with (wanted {wanted}, found {', '.join(seen) or 'nothing'}); plug one in and "
            f"check that /dev/input is readable, or choose the keyboard or the simulated operator"
        )

    def close(self) -> None:
        """Let go of the pad."""
        self._drop()
        if controller.get_init():
            controller.quit()

    def handle(self, event: pygame.event.Event) -> None:
        """Take in one SDL event; those of other devices change nothing."""
        if event.type == pygame.CONTROLLERDEVICEADDED:
            self._replug(event)
            return
        if self._pad is None or getattr(event, "instance_id", None) != self._instance:
            return
        if event.type == pygame.CONTROLLERBUTTONDOWN:
            self._events = merged(self._events, _EVENTS.get(event.button, HumanEvent.NONE))
        elif event.type == pygame.CONTROLLERAXISMOTION and event.axis in _TRIGGERS:
            self._trigger(event.axis, event.value / _FULL)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._drop()

    def read(self, now_s: float) -> HumanCommand:
        """Return what the person wants now and clear the latched edges."""
        events, self._events = self._events, HumanEvent.NONE
        pad = self._pad if self._pad is not None and self._pad.attached() else None
        drive = pad is not None and pad.get_button(pygame.CONTROLLER_BUTTON_RIGHTSHOULDER)
        engaged = self._deadman.update(present=pad is not None, pressed=drive, now_s=now_s)
        if not self._deadman.settled or HumanEvent.STOP in events:
            events &= HumanEvent.STOP  # a stop is believed at once and outdoes whatever else was pressed
        held = _TRIGGERS[next(iter(self._pulled))] if len(self._pulled) == 1 else None
        gripper = self._gripper.update(engaged=engaged, held=held)
        if pad is None or not engaged:
            return HumanCommand(events=events, polled_s=now_s, connected=pad is not None)
        config = self._config
        left_x, left_y = self._stick(pad, pygame.CONTROLLER_AXIS_LEFTX, pygame.CONTROLLER_AXIS_LEFTY)
        right_x, right_y = self._stick(pad, pygame.CONTROLLER_AXIS_RIGHTX, pygame.CONTROLLER_AXIS_RIGHTY)
        twist = twist_base(  # SDL's sticks point right and down
            forward=-left_y,
            left=-left_x,
            up=-right_y,
            turn=-right_x,
            view_yaw_rad=config.view_yaw_rad,
            speed_share=config.speed_share,
        )
        return HumanCommand(twist=twist, gripper=gripper, engaged=True, events=events, polled_s=now_s)

    def _stick(self, pad: controller.Controller, x_axis: int, y_axis: int) -> tuple[float, float]:
        x, y = max(pad.get_axis(x_axis) / _FULL, -1.0), max(pad.get_axis(y_axis) / _FULL, -1.0)
        return shaped(x, y, dead_zone=self._config.dead_zone, exponent=self._config.exponent)

    def _trigger(self, axis: int, travel: float) -> None:
        if travel >= _PULLED and axis not in self._pulled:
            self._pulled.add(axis)
            self._gripper.ask(_TRIGGERS[axis])
        elif travel <= _LET_GO:
            self._pulled.discard(axis)

    def _fits(self, pad: controller.Controller) -> bool:
        wanted = self._config.pad
        return wanted is None or wanted.lower() in pad.name.lower() or wanted == pad.as_joystick().get_guid()

    def _take(self, pad: controller.Controller) -> None:
        missing = [need for need in _NEEDED if need not in pad.get_mapping()]
        if missing:
            name = pad.name
            self.close()
            raise BadInputError(
                f"gamepad {name!r}: has no {', '.join(missing)}, which supervising needs; use another pad or give its "
                f"mapping in SDL_GAMECONTROLLERCONFIG"
            )
        self._pad, self._guid, self._instance = pad, pad.as_joystick().get_guid(), pad.as_joystick().get_instance_id()

    def _replug(self, event: pygame.event.Event) -> None:
        if self._pad is not None or not controller.is_controller(event.device_index):
            return
        try:
            pad = controller.Controller(event.device_index)
        except pygame.error:  # gone again, or not readable yet: still unplugged, and the next report tries anew
            return
        if pad.as_joystick().get_guid() == self._guid:  # of the pad itself: indices shift when several come and go
            self._pad, self._instance = pad, pad.as_joystick().get_instance_id()
        else:
            pad.quit()

    def _drop(self) -> None:
        if self._pad is not None:
            self._pad.quit()
        self._pad = None
        self._pulled.clear()
        self._deadman.lost()

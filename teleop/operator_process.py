"""The person's device and window in a process of their own: what they say to the loop, what the loop shows to them.

Started as `python -m teleop.operator_process --config JSON --commands MEMORY BELL --view FILE` with what
`robot.supervised.Supervised` needs; `teleop.operator_link` has the loop's end.
"""

from __future__ import annotations

import argparse
import enum
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from robot.command import Reason
from robot.errors import BadInputError
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from robot.strict import Strict
from robot.supervised import Supervised
from teleop.arbiter import HoldReason
from teleop.device_config import GamepadConfig, KeyboardConfig
from teleop.gamepad import Gamepad
from teleop.human_input import HumanCommand, HumanEvent
from teleop.keyboard import Keyboard
from teleop.operator_messages import COMMAND_BYTES, TEXT_BYTES, Said, merged, pack_command
from teleop.operator_status import OperatorStatus
from teleop.returning_device import ReturningDevice
from teleop.status_record import StatusReader
from teleop.window import EventDevice, OperatorWindow

_PERIOD_S = 1.0 / 150.0
_DRAWING_SHARE = 0.25  # of the time at most: the device is what matters, and cores are short
_STALE_S = 2  # a status that is older is no longer shown as if it were so


class OperatorFault(enum.IntEnum):
    """What the process shows on demand, for as long as its place on the board says so."""

    UNPLUGGED = 1  # as if the device were pulled out
    SILENT = 2  # lives, but says nothing
    GARBLED = 3  # says what no device can have said


class OperatorProcessConfig(Strict):
    """Which device, how it feels, and after what silence its drive button must be pressed anew [s]."""

    kind: Literal["gamepad", "keyboard"]
    silence_s: Annotated[float, Field(gt=0.0)]
    gamepad: GamepadConfig = GamepadConfig()
    keyboard: KeyboardConfig = KeyboardConfig()

    def device(self, identity: str) -> EventDevice:
        """Return the device, not opened yet: the very one of that identity where there was one."""
        if self.kind == "keyboard":
            return Keyboard(self.keyboard, silence_s=self.silence_s)
        gamepad = self.gamepad.model_copy(update={"pad": identity}) if identity else self.gamepad
        return Gamepad(gamepad, silence_s=self.silence_s)


class CommandSender:
    """Says every command to the loop, and keeps the edges of those for which there is no room."""

    def __init__(self, ring: MessageRing) -> None:
        self._ring = ring
        self._edges = HumanEvent.NONE

    def send(self, command: HumanCommand) -> bool:
        """Send a command; without room its edges go with the next one for which there is. Return whether it went."""
        self._edges = merged(self._edges, command.events)
        if not self._ring.has_room(COMMAND_BYTES):
            return False
        self._ring.put(Said.COMMAND, pack_command(replace(command, events=self._edges)))
        self._edges = HumanEvent.NONE
        return True


class StatusPresenter:
    """Shows the newest status, never for more than a share of the time."""

    def __init__(self, window: OperatorWindow, statuses: StatusReader, status: OperatorStatus | None) -> None:
        """Begin with `status`, the last one that a predecessor may have shown."""
        self._window, self._statuses, self._status = window, statuses, status
        self._heard_s = time.monotonic()
        self._rest_until_s = 0.0
        self._fresh = status is not None
        self._silent_s = 0  # as shown

    def look(self, now_s: float) -> None:
        """Draw if there is something new and it is time."""
        newest = self._statuses.newest()
        if newest is not None:
            self._status, self._heard_s, self._fresh, self._silent_s = newest, now_s, True, 0
        if self._status is None or now_s < self._rest_until_s:
            return
        silent_s = int(now_s - self._heard_s)
        if self._fresh:
            self._fresh = not self._draw(self._status, now_s)
        elif silent_s >= _STALE_S and silent_s != self._silent_s:
            self._silent_s = silent_s
            self._draw(_stale(self._status, silent_s), now_s)

    def _draw(self, status: OperatorStatus, now_s: float) -> bool:
        began_s = time.monotonic()
        drawn = self._window.show(status, now_s=now_s)
        ended_s = time.monotonic()
        self._rest_until_s = ended_s + (ended_s - began_s) * (1.0 / _DRAWING_SHARE - 1.0)
        return drawn


def _stale(status: OperatorStatus, silent_s: int) -> OperatorStatus:
    """The last picture, without what may no longer be true."""
    notice = f"the robot has shown nothing for {silent_s} s"
    return replace(status, rate_hz=0.0, hold_reason=HoldReason.NONE, safety=Reason.NONE, notice=notice)


def main(arguments: Sequence[str], before_poll: Callable[[], None] = lambda: None) -> int:
    """Serve until told to end; return the exit status, 2 when what the person gave cannot be used.

    Args:
        arguments: of the command line.
        before_poll: called before each look at the device, for tests that hold a device in their own hands.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=OperatorProcessConfig.model_validate_json, required=True)
    parser.add_argument("--commands", type=int, nargs=2, required=True)
    parser.add_argument("--view", type=int, required=True)
    Supervised.add_arguments(parser)
    args = parser.parse_args(arguments)
    supervised = Supervised(args.board, args.place, args.parent, orphaned=signal.SIGKILL)
    with ExitStack() as stack:
        ring = stack.enter_context(closing(MessageRing(*args.commands)))
        statuses = StatusReader(stack.enter_context(closing(SharedRing(args.view))))
        first = ring.written == 0
        shown = statuses.newest()
        # A successor waits for the device of its predecessor: it may be unplugged just now.
        device = ReturningDevice(args.config.device(statuses.device), required=first)
        try:
            window = stack.enter_context(OperatorWindow(device))
        except BadInputError as error:
            _say(ring, Said.REFUSED, str(error), supervised)
            return 2 if first else 3  # only the first is the person's to mend at once; another may get further
        _say(ring, Said.OPENED, device.identity, supervised)
        supervised.ready()
        presenter = StatusPresenter(window, statuses, shown)
        _serve(supervised, CommandSender(ring), window, device, presenter, before_poll)
    return 0


def _serve(
    supervised: Supervised,
    sender: CommandSender,
    window: OperatorWindow,
    device: ReturningDevice,
    presenter: StatusPresenter,
    before_poll: Callable[[], None],
) -> None:
    due_s = time.monotonic()
    while not supervised.stopping:
        supervised.beat()
        before_poll()
        fault, _ = supervised.fault
        device.hide(fault == OperatorFault.UNPLUGGED)
        # read before the device is: what it says is never taken for newer than it is
        now_s = time.monotonic()
        command = window.poll(now_s)
        if fault == OperatorFault.GARBLED:
            command = replace(command, engaged=True, twist=command.twist + float("nan"))
        if fault != OperatorFault.SILENT:
            sender.send(command)
        presenter.look(now_s)
        due_s = max(due_s + _PERIOD_S, time.monotonic() - _PERIOD_S)
        time.sleep(max(0.0, due_s - time.monotonic()))


def _say(ring: MessageRing, kind: Said, text: str, supervised: Supervised) -> None:
    """Say what must not be lost; a loop that takes nothing is waited for."""
    data = text.encode()[:TEXT_BYTES]
    while not ring.has_room(len(data)) and not supervised.stopping:
        supervised.beat()
        time.sleep(_PERIOD_S)
    if ring.has_room(len(data)):
        ring.put(kind, data)
        ring.ring()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Shows each verb of the person's device as it is given, so that a hand learns the pad before an arm follows it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot.clock import Clock
from teleop.gripper_wish import CLOSE, OPEN
from teleop.human_input import HumanCommand, HumanEvent
from teleop.window import EventDevice, OperatorWindow

_MOVED = 0.02  # of full speed, of which a station may let through a tenth
_POLL_S = 0.01
_EVENTS = {
    HumanEvent.SUCCESS: "success",
    HumanEvent.FAILURE: "failure",
    HumanEvent.RERECORD: "rerecord",
    HumanEvent.HOLD: "hold",
    HumanEvent.ARM: "arm",
    HumanEvent.STOP: "stop",
}
_MOTIONS = {  # of a twist; the names are those of `EventDevice.verbs`
    "move": slice(0, 2),
    "up, down, turn": slice(2, 6),
    "up, down": slice(2, 3),
    "turn": slice(3, 6),
}
_KNOWN = {*_EVENTS.values(), "drive", *_MOTIONS, "close gripper", "open gripper"}


def given(command: HumanCommand) -> list[str]:
    """Return the verbs that a person gives with `command`; motion and gripper count while they drive, as in a run."""
    verbs = [verb for event, verb in _EVENTS.items() if event in command.events]
    if command.engaged:
        verbs.append("drive")
        verbs += [verb for verb, part in _MOTIONS.items() if np.abs(command.twist[part]).max() > _MOVED]
        verbs += ["close gripper"] if command.gripper == CLOSE else []
        verbs += ["open gripper"] if command.gripper == OPEN else []
    return verbs


def watch_verbs(device: EventDevice, *, limit_s: float, clock: Clock) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each verb of `device` when it begins to be given, with those that never were until now.

    Ends when all were, after `limit_s`, or when the window is closed.

    Raises:
        BadInputError: no display, or no such device.
    """
    left = [verb for verb in device.verbs if verb in _KNOWN]
    before: set[str] = set()
    deadline_s = clock.now_s() + limit_s
    with OperatorWindow(device, title="Handrail: try each verb") as window:
        while left and clock.now_s() < deadline_s:
            command = window.poll(clock.now_s())
            if HumanEvent.QUIT in command.events:
                return
            now = [verb for verb in given(command) if verb in device.verbs]
            for verb in now:
                if verb not in before:
                    left = [other for other in left if other != verb]
                    yield verb, tuple(left)
            before = set(now)
            clock.sleep_until(clock.now_s() + _POLL_S)

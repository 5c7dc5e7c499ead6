"""What the operator's process says to the loop, as bytes; nothing that it says is believed unchecked."""

from __future__ import annotations

import enum
import struct

import numpy as np

from teleop.human_input import HumanCommand, HumanEvent

_COMMAND = struct.Struct("=8d4I")  # polled_s, twist, gripper; events, engaged, connected, whether a gripper is wished
_TIME = struct.Struct("=d")
COMMAND_BYTES = _COMMAND.size
TEXT_BYTES = 2000
# A command is stamped before the loop looks at its own clock, but for a loop that lost its core in between [s].
_AHEAD_S = 1.0
_STOPS = HumanEvent.STOP | HumanEvent.QUIT
_ALL_EVENTS = sum(HumanEvent)


class Said(enum.IntEnum):
    """Kind of a message; what it holds stands behind it."""

    COMMAND = 0  # see `pack_command`
    OPENED = 1  # window and device are there; text: the device's identity, empty where it has none
    REFUSED = 2  # they cannot be opened; text: why, one line for the person


def merged(earlier: HumanEvent, later: HumanEvent) -> HumanEvent:
    """Return the edges of two polls, or two presses, as one: what heeds it comes to the same as if heeding both.

    A stop outdoes whatever else was pressed. Holding is toggled, so two presses cancel; arming ends it, so one before
    arming does not count.
    """
    both = earlier | later
    if HumanEvent.STOP in both:
        return both & _STOPS
    if HumanEvent.HOLD in earlier and (HumanEvent.HOLD in later or HumanEvent.ARM in later):
        # of two presses neither is left, of one before arming only what came with the arming
        held = later & HumanEvent.HOLD if HumanEvent.ARM in later else HumanEvent.NONE
        return both & ~HumanEvent.HOLD | held
    return both


def pack_command(command: HumanCommand) -> bytes:
    """Return a command as `COMMAND_BYTES` bytes."""
    return _COMMAND.pack(
        command.polled_s,
        *command.twist.tolist(),
        command.gripper or 0.0,
        command.events,
        command.engaged,
        command.connected,
        command.gripper is not None,
    )


def unpack_command(data: bytes, *, now_s: float) -> HumanCommand | None:
    """Return what `pack_command` packed, or None for what no device can have said.

    Args:
        data: of a `Said.COMMAND`.
        now_s: host monotonic clock; a later stamp is taken for this [s].
    """
    if len(data) != COMMAND_BYTES:
        return None
    polled_s, *twist, gripper, events, engaged, connected, wished = _COMMAND.unpack(data)
    # written so that NaN fails every comparison
    bounded = -1.0 <= gripper <= 1.0 and min(twist) >= -1.0 and max(twist) <= 1.0 and abs(sum(twist)) <= 6.0
    timed = 0.0 <= polled_s <= now_s + _AHEAD_S
    flags = engaged <= 1 and connected <= 1 and wished <= 1 and not events & ~_ALL_EVENTS
    consistent = engaged <= connected and (engaged or not (wished or any(twist)))
    if not (bounded and timed and flags and consistent):
        return None
    return HumanCommand(
        twist=np.array(twist),
        gripper=gripper if wished else None,
        engaged=bool(engaged),
        events=HumanEvent(events),
        polled_s=min(polled_s, now_s),
        connected=bool(connected),
    )


def same_but_later(data: bytes, earlier: bytes, *, now_s: float) -> float | None:
    """Return when a command was polled that says, in time, just what a sound `earlier` one without edges said.

    Most are such: nothing else of them has to be looked at. None for any other.
    """
    if data[_TIME.size :] != earlier[_TIME.size :] or not earlier:
        return None
    polled_s: float = _TIME.unpack_from(data)[0]
    return min(polled_s, now_s) if 0.0 <= polled_s <= now_s + _AHEAD_S else None

"""What a Franka refuses to move for, in one line that says the cure."""

from __future__ import annotations

from collections.abc import Sequence

# libfranka's `RobotMode` by name
_WORKING = ("Idle", "Move")
_MODES = {
    "Other": "is locked or busy; unlock the brakes and activate FCI in Desk, then arm again",
    "Guiding": "is guided by hand; let go of it, then arm again",
    "UserStopped": "is user-stopped; look at the arm, release the stop, then arm again",
    "AutomaticErrorRecovery": "is recovering; wait, then arm again",
}
_LONGEST = 90  # of what is quoted in a fault, whose text has 200 bytes, so that the cure is not cut off


def mode_fault(where: str, mode: str, errors: Sequence[str]) -> str | None:
    """Return what is wrong with an arm in a mode of libfranka, None for nothing.

    Args:
        where: what the person calls the arm.
        mode: name of the mode.
        errors: names of the controller's errors, in reflex mode.
    """
    if mode == "Reflex":
        named = ", ".join(errors) or "no reason given"
        return f"{where} stopped by a reflex ({quoted(named)}); look at the arm, then arm again"
    if mode in _WORKING:
        return None
    return f"{where} {_MODES.get(mode, f'is in mode {mode!r}, which is unknown here; look at Desk, then arm again')}"


def quoted(said: str, longest: int = _LONGEST) -> str:
    """Return what a vendor's library said, on one line and short enough to leave room for the cure."""
    line = " ".join(said.split()).removesuffix(".")
    return line if len(line) <= longest else line[: longest - 3] + "..."

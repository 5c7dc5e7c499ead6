"""When a held button may count as driving."""

from __future__ import annotations

import math

# A pad that was just plugged in, or a window that just got the focus, first reports the buttons that are held
# already as if they were pressed now; wireless pads need some reports until their state is true [s].
SETTLE_S = 0.25


class Deadman:
    """Turns the level of the drive button into `engaged`.

    Only a press made after the device has settled counts: a button that is held, jammed or reported late while
    the device comes back never moves the arm. A device that nobody looked at for a while may have been let go of and
    pressed again by then, and the robot has stopped: it counts as gone, too.

    Args:
        silence_s: the longest time between two looks in which the button counts as held all along [s].
    """

    def __init__(self, *, silence_s: float) -> None:
        self._silence_s = silence_s
        self._looked_s = -math.inf
        self._present_since_s: float | None = None
        self._released = False
        self.settled = False

    def lost(self) -> None:
        """Forget everything: the device went away, if only for a moment."""
        self._present_since_s = None
        self._released = False
        self.settled = False

    def update(self, *, present: bool, pressed: bool, now_s: float) -> bool:
        """Return whether the person drives.

        Args:
            present: the device is there.
            pressed: the drive button is down.
            now_s: host monotonic clock [s].
        """
        if not now_s - self._looked_s <= self._silence_s:
            self.lost()
        self._looked_s = now_s
        if not present:
            self.lost()
            return False
        if self._present_since_s is None:
            self._present_since_s = now_s
        self.settled = now_s - self._present_since_s >= SETTLE_S
        if self.settled and not pressed:
            self._released = True
        return pressed and self._released

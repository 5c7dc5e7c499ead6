"""The Franka Hand beside the arm: it goes its own way and nothing waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from robot.errors import HardwareError
from robot.franka_link import HandLink

# The hand plans each motion from rest and cannot take a new width meanwhile: smaller changes would make it stutter.
_DEAD_BAND_M = 2e-3
_PAUSE_S = 0.02  # between two looks at the width; the hand tells it some 30 times a second


class FrankaHand:
    """Goes to the width wanted last: opening moves, closing grasps whatever is in between.

    A motion is never broken off, so a new wish waits for the fingers to arrive, 0.8 s at most at 0.1 m/s. Until the
    first wish that differs from where it stands nothing is sent. What fails stays a fault until `clear`. A wish that
    waits when the arm comes to rest, for whatever cause, is dropped: when it moves again there may be a hand between
    the fingers.

    Args:
        link: the open gripper.
    """

    def __init__(self, link: HandLink) -> None:
        self._link = link
        self.width_m = self._commanded_m = link.width_m()
        self.fault: str | None = None
        self._wanted_m = self.width_m
        self._wake, self._ends = threading.Event(), False
        self._threads = [
            threading.Thread(target=self._loop, args=(each,), daemon=True) for each in (self._look, self._work)
        ]

    @property
    def wanted_m(self) -> float:
        """The width in force [m]."""
        return self._wanted_m

    def begin(self) -> None:
        """Start to look and to work."""
        for thread in self._threads:
            thread.start()

    def want(self, width_m: float) -> None:
        """Go to a width as soon as the fingers are free [m]. Never waits."""
        if width_m != self._wanted_m:
            self._wanted_m = width_m
            self._wake.set()

    def drop(self) -> None:
        """Want nothing but what is done already: the arm comes to rest or does not follow."""
        self._wanted_m = self._commanded_m

    def clear(self) -> None:
        """Forget a fault, and stay until the next wish. For the person's arm verb only."""
        if self.fault is not None:
            self._wanted_m = self._commanded_m = self.width_m
            self.fault = None

    def end(self) -> None:
        """Begin no motion any more."""
        self._ends = True
        self._wake.set()

    def work_once(self) -> bool:
        """Make one motion if one is wanted, and return whether there was one."""
        wanted_m = self._wanted_m  # read once: others write it
        off_m = wanted_m - self._commanded_m
        if self.fault is not None or abs(off_m) <= _DEAD_BAND_M:
            return False
        self._commanded_m = wanted_m
        (self._link.move if off_m > 0.0 else self._link.grasp)(wanted_m)
        return True

    def _work(self) -> None:
        self._wake.wait()
        self._wake.clear()
        while not self._ends and self.work_once():
            pass

    def _look(self) -> None:
        self.width_m = self._link.width_m()
        threading.Event().wait(_PAUSE_S)

    def _loop(self, work: Callable[[], None]) -> None:
        while not self._ends:
            try:
                work()
            except HardwareError as error:
                self.fault = self.fault or f"{error}; look at the hand, then arm again"
                threading.Event().wait(_PAUSE_S)

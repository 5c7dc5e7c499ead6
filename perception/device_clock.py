"""When a frame was taken, on the host's clock, from the stamp of a device's own clock or from its arrival alone."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Protocol

from perception.lower_envelope import LowerEnvelope

Point = tuple[float, float]

_SIGMAS = 6.0  # a stamp further ahead of the fit than so many standard deviations is from the future
_STEP_S = 1e-6  # least advance of captured_s from frame to frame


class Refusal(enum.Enum):
    """Why a stamp was not believed."""

    NOT_FINITE = "not a finite number"
    BACKWARD = "not newer than the stamp before"
    FUTURE = "taken after it arrived"
    OUTLIER = "far too late against the fit"


@dataclass(frozen=True, kw_only=True)
class Captured:
    """When a frame was taken.

    Attributes:
        captured_s: host monotonic clock [s]; never after the arrival, always later than the frame before.
        uncertainty_s: how far it may be off, one standard deviation [s].
    """

    captured_s: float
    uncertainty_s: float


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A frame whose time is not known; it must not be used."""

    reason: Refusal


class CaptureClock(Protocol):
    """What tells when a camera's frames were taken."""

    def captured(self, device_s: float | None, arrived_s: float) -> Captured | Refused:
        """Return when the frame was taken that arrived at `arrived_s` with the device's stamp `device_s` [s]."""
        ...

    def reopened(self) -> None:
        """Learn that the device was opened anew; its own clock may have begun anew, or gone on."""
        ...


class ArrivalClock:
    """For a device without a clock of its own: arrival less a calibrated latency."""

    def __init__(self, *, latency_s: float, uncertainty_s: float) -> None:
        """Take `latency_s` from capture to arrival [s] and its standard deviation, both as calibrated."""
        self._latency_s, self._uncertainty_s = latency_s, uncertainty_s
        self._last_s = -math.inf

    def captured(self, device_s: float | None, arrived_s: float) -> Captured | Refused:
        """Return arrival less latency, whatever the device says; refuse an arrival that is not later than the last."""
        if not math.isfinite(arrived_s):
            return Refused(reason=Refusal.NOT_FINITE)
        captured_s = arrived_s - self._latency_s
        if captured_s <= self._last_s:
            return Refused(reason=Refusal.BACKWARD)
        self._last_s = captured_s
        return Captured(captured_s=captured_s, uncertainty_s=self._uncertainty_s)

    def reopened(self) -> None:
        """Do nothing: arrivals are of the host's clock, which went on."""


class DeviceClock:
    """Running fit of a device's clock to the host's: offset and drift from (device stamp, arrival) pairs.

    A frame arrives when it was taken, plus the least transport time, plus a delay that is never negative and may have a
    heavy tail; so the fit is the `LowerEnvelope` of the pairs.

    The fit cannot see the least transport time; `latency_s` is the calibrated time from capture to the arrival of
    a frame that nothing delays. A stamp that is refused changes nothing. A device whose clock was set anew is taken up
    again when every stamp was refused for `reset_after_s` and at least `reset_count` of them agree on a new line, the
    first of which could not be on the old one: older than a stamp before, or from the future. Frames that are only
    late, however steadily, are a backlog and stay refused, since on a new line they would count as fresh.

    The map outlives the device's reopening: stamps that suit it go on with it, and only an impossible one begins anew.

    A step of the clock by less than a frame period cannot be told from frames that come late by as much; it shows in
    the uncertainty, and leaves the fit with the window. Nor can a clock that was set back while no frame came be told
    from a backlog: it is refused.
    """

    def __init__(
        self,
        *,
        latency_s: float,
        max_drift: float = 5e-4,
        outlier_s: float = 0.5,
        reset_after_s: float = 1.0,
        reset_count: int = 10,
    ) -> None:
        """Begin without any fit.

        Args:
            latency_s: from capture to the arrival of a frame that nothing delays [s].
            max_drift: greatest error of the device's rate [s/s]; crystals are within 100 ppm.
            outlier_s: a frame that would be later than this against the fit is not believed [s].
            reset_after_s: for how long a clock that was set anew must show one new line [s].
            reset_count: how many stamps that takes at least.
        """
        self._latency_s, self._max_drift, self._outlier_s = latency_s, max_drift, outlier_s
        self._reset_after_s, self._reset_count = reset_after_s, reset_count
        self._last_captured_s = self._last_arrived_s = -math.inf
        self._candidates: list[Point] = []
        self._line: LowerEnvelope | None = None
        self._reopened = False

    def reopened(self) -> None:
        """The next stamp that cannot be on the old line begins a new one at once."""
        self._reopened = True
        self._candidates.clear()

    def captured(self, device_s: float | None, arrived_s: float) -> Captured | Refused:
        """Map one stamp and learn from it. The stamps of one device, in the order in which they arrived.

        Returns:
            The capture time, or why the stamp is refused; then nothing but the watch for a reset remembers it.
        """
        if device_s is None or not (math.isfinite(device_s) and math.isfinite(arrived_s)):
            return Refused(reason=Refusal.NOT_FINITE)
        reopened, self._reopened = self._reopened, False
        if self._line is None:
            self._line = LowerEnvelope(device_s, arrived_s, self._max_drift)
            return self._accept(self._line, device_s, arrived_s)
        reason = self._objection(self._line, device_s, arrived_s)
        if reason is None:
            return self._accept(self._line, device_s, arrived_s)
        impossible = reason is Refusal.FUTURE or device_s < self._line.newest_device_s
        if reopened and impossible and arrived_s - self._last_captured_s >= _STEP_S:
            line: LowerEnvelope | None = LowerEnvelope(device_s, arrived_s, self._max_drift)
        else:
            line = self._new_line(device_s, arrived_s, impossible)
        if line is None:
            return Refused(reason=reason)
        self._line = line
        return self._accept(line, device_s, arrived_s)

    def _objection(self, line: LowerEnvelope, device_s: float, arrived_s: float) -> Refusal | None:
        passed_s = arrived_s - self._last_captured_s
        if device_s <= line.newest_device_s or arrived_s < self._last_arrived_s or passed_s < _STEP_S:
            return Refusal.BACKWARD
        late_s, uncertainty_s = arrived_s - line.at(device_s), line.uncertainty_s(device_s)
        if late_s < -_SIGMAS * uncertainty_s:
            return Refusal.FUTURE
        if late_s > self._outlier_s + _SIGMAS * uncertainty_s:
            return Refusal.OUTLIER
        return None

    def _accept(self, line: LowerEnvelope, device_s: float, arrived_s: float) -> Captured:
        line.add(device_s, arrived_s)
        self._candidates.clear()
        self._last_arrived_s = arrived_s
        mapped_s = min(line.at(device_s), arrived_s) - self._latency_s
        # a fit that has just come down may map a frame before the last one; it was taken after that all the same
        captured_s = min(arrived_s, max(mapped_s, self._last_captured_s + _STEP_S))
        self._last_captured_s = captured_s
        return Captured(
            captured_s=captured_s, uncertainty_s=math.hypot(line.uncertainty_s(device_s), captured_s - mapped_s)
        )

    def _new_line(self, device_s: float, arrived_s: float, impossible: bool) -> LowerEnvelope | None:
        """Remember a refused stamp, from an impossible one on; return a new fit once enough of them agree."""
        stamps = self._candidates
        if stamps:
            (first_device_s, first_arrived_s), (last_device_s, last_arrived_s) = stamps[0], stamps[-1]
            passed_s = device_s - first_device_s
            off_s = abs(arrived_s - first_arrived_s - passed_s)
            forward = device_s > last_device_s and arrived_s >= last_arrived_s  # they may come in a burst
            if not (forward and off_s <= self._outlier_s + self._max_drift * passed_s):
                stamps.clear()
        if not (stamps or impossible):
            return None  # lateness alone is a backlog, no new clock
        stamps.append((device_s, arrived_s))
        if len(stamps) < self._reset_count or arrived_s - stamps[0][1] < self._reset_after_s:
            return None
        line = LowerEnvelope(*stamps[0], self._max_drift)
        for stamp in stamps[:-1]:
            line.add(*stamp)
        return line

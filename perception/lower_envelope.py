"""From a device's clock to the host's: the fit below the arrivals."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

Point = tuple[float, float]

_BIN_S = 0.5  # of device time; of each bin only the stamp that came with the least delay is kept
_WINDOW_S = 60.0
_LEAST_BINS = 16  # kept even when they are older than the window, so that a silence does not forget the drift
_FLOOR_S = 1e-4  # no stamp is trusted further than this; interrupts and USB frames are of that order
_FIRST_S = 0.02  # by how much the first frame after a start may have been late, one standard deviation


class LowerEnvelope:
    """The line below all pairs of (device stamp, arrival) that lies closest to them.

    Delays are never negative, so the truth is no line through the middle of the points. This is the linear programme of
    Moon, Skelly and Towsley, "Estimation and Removal of Clock Skew from Network Delay Measurements", INFOCOM 1999,
    whose solution is the edge of the lower convex hull at the mean device time. Here the points are the least delayed
    stamp of each half second of the last minute, so the work for a stamp is bounded: a comparison, and the
    hull of at most some 120 points when a bin closes or a stamp lies below the line.

    Frames that all come later than before lift the line once the window has forgotten the prompt ones. A line cannot
    tell that from the truth, so by how much it was lifted within the window is part of the uncertainty.

    Inside, x is device time since the first stamp and y how much further the host's clock went since then.
    """

    def __init__(self, device_s: float, arrived_s: float, max_drift: float) -> None:
        """Begin at a pair, which `add` has yet to be given; the device's rate is off by at most `max_drift` [s/s]."""
        self._device_s, self._arrived_s, self._max_drift = device_s, arrived_s, max_drift
        self.newest_device_s = device_s
        self._bins: list[Point] = []  # least delayed stamp of each bin, in order of x
        self._bin = -1
        self._counts: list[int] = []
        self._slope = self._level = self._centre = 0.0  # y = level + slope (x - centre)
        self._rough_s, self._slope_error = _FIRST_S, max_drift
        self._stamps = 0
        self._lines: list[Point] = []  # end of the line as it was when each bin of the window closed
        self._risen_s = 0.0

    def at(self, device_s: float) -> float:
        """Return when a frame with this stamp arrives that nothing delays, host clock [s]."""
        x = device_s - self._device_s
        return self._arrived_s + x + self._level + self._slope * (x - self._centre)

    def uncertainty_s(self, device_s: float) -> float:
        """Return the standard deviation of `at` [s]; it grows with the distance from the stamps that were seen."""
        x = device_s - self._device_s
        return math.hypot(self._rough_s, self._risen_s, self._slope_error * (x - self._centre))

    def add(self, device_s: float, arrived_s: float) -> None:
        """Learn from a stamp that is newer than all before."""
        x = device_s - self._device_s
        y = arrived_s - self._arrived_s - x
        below = y < self._level + self._slope * (x - self._centre)
        self.newest_device_s = device_s
        self._stamps += 1
        number = int(x / _BIN_S)
        if number != self._bin:
            self._bin = number
            self._bins.append((x, y))
            self._counts.append(1)
            while len(self._bins) > _LEAST_BINS and self._bins[0][0] < x - _WINDOW_S:
                self._stamps -= self._counts.pop(0)
                del self._bins[0]
            self._fit()
            while self._lines and self._lines[0][0] < x - _WINDOW_S:
                del self._lines[0]
            self._lines.append((x, self._level + self._slope * (x - self._centre)))
            return
        self._counts[-1] += 1
        if y - self._slope * x < self._bins[-1][1] - self._slope * self._bins[-1][0]:
            self._bins[-1] = (x, y)
        if below:
            self._fit()

    def _fit(self) -> None:
        points = self._bins
        self._centre = sum(x for x, _ in points) / len(points)
        slope = _edge_slope(_lower_hull(points), self._centre)
        self._slope = min(self._max_drift, max(-self._max_drift, slope))
        heights = [y - self._slope * (x - self._centre) for x, y in points]
        self._level = min(heights)
        # How rough the envelope is: half of the bins' least delays lie within this of the line. With few stamps that
        # says little. The least of n independent delays errs by their mean / n, but delays come in bursts while
        # the machine is busy, so the root of n is taken.
        roughness_s = statistics.median(heights) - self._level
        self._rough_s = math.hypot(_FLOOR_S, roughness_s, _FIRST_S / math.sqrt(self._stamps))
        span_s = points[-1][0] - points[0][0]
        if span_s > 0.0:
            self._slope_error = min(self._max_drift, 2.0 * self._rough_s / span_s)
        risen = (self._level + self._slope * (x - self._centre) - was for x, was in self._lines)
        self._risen_s = max(0.0, max(risen, default=0.0))


def _lower_hull(points: Sequence[Point]) -> list[Point]:
    """Andrew's monotone chain; `points` in ascending order of x."""
    hull: list[Point] = []
    for x, y in points:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2], hull[-1]
            if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                break
            hull.pop()
        hull.append((x, y))
    return hull


def _edge_slope(hull: Sequence[Point], x: float) -> float:
    """Slope of the hull's edge over `x`; 0 where there is one point only."""
    for (ax, ay), (bx, by) in itertools.pairwise(hull):
        if x <= bx:
            return (by - ay) / (bx - ax)
    return 0.0

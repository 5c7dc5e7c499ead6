"""From the stamps of a RealSense frame to seconds of one clock that goes on."""

from __future__ import annotations

from typing import Literal

from robot.errors import HardwareError

Stamps = Literal["hardware", "global", "arrival"]

# The clock of the D400 family counts microseconds in 32 bits and begins anew every 71.6 minutes; the SDK hands that on.
WRAP_S = 2**32 * 1e-6
_DOMAINS = {"hardware": "hardware_clock", "global": "global_time"}
_CURES = {
    "hardware_clock": "say stamps = 'hardware'",
    "global_time": "say stamps = 'global'",
    "system_time": "the kernel gives no metadata: install the SDK's udev rules and patch, or say stamps = 'arrival'",
}


class RealSenseStamps:
    """Checks the domain of each stamp, and goes on counting where the device's clock begins anew.

    The SDK falls back from the device's clock to the host's without a word when it lacks metadata, and global time
    begins as the device's until it has an estimate. Stamps of two domains in one row would be a jump of hours.

    Args:
        stamps: of the station.
        patience: how many frames in a row may be of another domain.
    """

    def __init__(self, stamps: Stamps, patience: int) -> None:
        self._domain, self._patience = _DOMAINS.get(stamps), patience
        self._stamps = stamps
        self._last: tuple[float, float] | None = None  # stamp and arrival
        self.strange = 0  # frames in a row of another domain

    def seconds(self, stamp_ms: float, domain: str, arrived_s: float) -> float | None:
        """Return the stamp in seconds, None for a frame that must not be used.

        Args:
            stamp_ms: what the SDK says [ms].
            domain: name of the clock that it says it is of.
            arrived_s: when the host had the frame [s].

        Raises:
            HardwareError: all frames are of another domain than the station says.
        """
        if domain != self._domain:
            self.strange += 1
            if self.strange > self._patience:
                raise HardwareError(
                    f"stamps are of the clock {domain!r}, the station says stamps = {self._stamps!r}; {_CURES[domain]}"
                )
            return None
        self.strange = 0
        stamp_s = stamp_ms * 1e-3
        if self._stamps == "hardware":
            if self._last is not None:
                expected_s = self._last[0] + arrived_s - self._last[1]
                stamp_s += WRAP_S * round((expected_s - stamp_s) / WRAP_S)
            self._last = stamp_s, arrived_s
        return stamp_s

"""A calibration that is not good enough to be kept."""

from __future__ import annotations

from robot.errors import HandrailError


class CalibrationRefusedError(HandrailError):
    """What was recorded says too little, or does not fit together; scripts exit with 1 and write no file."""

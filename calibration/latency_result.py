"""The calibration file of `latency`, and where its figure goes in a station."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calibration.refused import CalibrationRefusedError
from calibration.result import CalibrationResult

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]
_MOST_LATENCY_S, _MOST_UNCERTAINTY_S = 1.0, 0.1  # that a station takes
_NORMAL_95 = 1.96


class LatencyResult(CalibrationResult):
    """How late something is.

    Attributes:
        part: what was measured, and its name in the station where it has one.
        delay_s: of the observed signal behind the commanded one [s].
        interval_95_s: lower and upper end [s].
        correlation: of the two at that delay.
        columns: which were compared.
        due_after_s: of episodes: how long after the start of its tick a command counts from, median [s].
        latency_s: of a camera: what its key of that name in the station should be [s].
    """

    kind: Literal["latency"] = "latency"
    part: Literal["camera", "arm", "gripper"]
    name: str | None = None
    delay_s: Seconds
    interval_95_s: tuple[float, float]
    correlation: Share
    columns: tuple[str, ...]
    due_after_s: Seconds | None = None
    latency_s: Annotated[float, Field(ge=0.0, le=_MOST_LATENCY_S)] | None = None


def camera_latency_s(delay_s: float, taken_off_s: float) -> float:
    """Return a camera's `latency_s` from its delay and what the times of its pictures had taken off already [s].

    Raises:
        CalibrationRefusedError: it is none that a camera can have.
    """
    latency_s = taken_off_s + delay_s
    if not 0.0 <= latency_s <= _MOST_LATENCY_S:
        raise CalibrationRefusedError(
            f"the camera would be {1e3 * latency_s:.1f} ms late (allowed 0 to {1e3 * _MOST_LATENCY_S:g} ms); check "
            "that both files have one clock, and --latency-s"
        )
    return latency_s


def station_lines(result: LatencyResult) -> list[str]:
    """Return what to put into a station, or why there is nothing to put."""
    low, high = result.interval_95_s
    if result.latency_s is not None:
        spread_s = min((high - low) / 2.0 / _NORMAL_95, _MOST_UNCERTAINTY_S)
        where = f"camera.{result.name}" if result.name else "its [[camera]]"
        return [
            f"station: set latency_s = {result.latency_s:.4f} in {where}",
            f"station: with stamps of arrival alone, also latency_uncertainty_s = {spread_s:.4f}",
        ]
    if result.part == "gripper":
        return ["station: no key takes a gripper's delay; the loop and the log have its measured width"]
    return [
        "station: no key takes an arm's delay, the loop goes by the measured pose. What it costs: at each 0.1 m/s "
        f"the arm is {100.0 * max(result.delay_s, 0.0):.1f} mm behind its command, which safety.max_tracking_m has to "
        "exceed"
    ]

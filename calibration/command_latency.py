"""`calibrate_rig.py latency`: how late a camera, an arm or a gripper is."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.command import Outcome
from calibration.delay import Signal, find_common_delay
from calibration.delay_picture import draw_delay
from calibration.latency_result import LatencyResult, camera_latency_s, station_lines
from calibration.result import document, sealed, write_result
from calibration.signal_file import read_pair
from robot.errors import BadInputError

Array = NDArray[np.float64]


class LoggedStretch(Protocol):
    """What was commanded and measured in one go: times (N,) and values (N, channels), (M,) and (M, channels)."""

    @property
    def commanded_s(self) -> Array: ...  # noqa: D102
    @property
    def commanded(self) -> Array: ...  # noqa: D102
    @property
    def measured_s(self) -> Array: ...  # noqa: D102
    @property
    def measured(self) -> Array: ...  # noqa: D102


class Log(Protocol):
    """What episodes show of an arm or a gripper; who reads them lies above this package."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the channels."""

    @property
    def stretches(self) -> Sequence[LoggedStretch]:
        """Of all episodes."""

    @property
    def files(self) -> Mapping[str, str]:
        """File name -> SHA-256."""

    @property
    def due_after_s(self) -> float:
        """How long after the start of its tick a command counts from, median [s]."""


ReadLog = Callable[[Sequence[Path], Literal["arm", "gripper"], Sequence[str] | None], Log]


@dataclass(frozen=True)
class LatencyCommand:
    """The subcommand, given what reads episodes."""

    SUMMARY: ClassVar[
        str
    ] = """Finds how much later one signal shows what another did: delay of an arm, gripper, camera.

Either from episodes (--episodes), for an arm and a gripper: what each tick commanded against what was measured. An
arm's delay counts from when a command was due, a gripper's from when it was sent. Or from two files with a line of
names with `t` [s, one clock for both] and further columns; those of the same name are compared, or those that --columns
names. For an arm, give commanded and measured positions; for a gripper, commanded and measured width; for a camera, the
hand's speed as the arm measured it and as the camera saw it (--rates). Move irregularly for 20 s or more. Exits with 1,
and writes no file, where the signals do not tell. Says which key of the station takes the figure."""
    EXAMPLES: ClassVar[Sequence[str]] = [
        "calibrate_rig.py latency arm --episodes runs/today --out calibration/arm_latency.json",
        "calibrate_rig.py latency gripper --episodes runs/today/episodes --out calibration/gripper_latency.json",
        "calibrate_rig.py latency gripper commanded.csv measured.csv --columns width_m --out calibration/gripper.json",
        "calibrate_rig.py latency camera arm_speed.csv seen_speed.csv --rates --name front --out front_latency.json",
    ]
    read_log: ReadLog

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of latency."""
        parser.add_argument("part", choices=["camera", "arm", "gripper"], help="what is late")
        parser.add_argument(
            "commanded", type=Path, nargs="?", metavar="CSV", help="what was asked for, or what the arm measured"
        )
        parser.add_argument("observed", type=Path, nargs="?", metavar="CSV", help="what came of it")
        parser.add_argument(
            "--episodes", type=Path, nargs="+", metavar="PATH", help="runs or episodes in place of the two files"
        )
        parser.add_argument(
            "--columns", metavar="A,B", help="what to compare (default: all that both files have; of an arm's episodes "
            "x_m,y_m,z_m; they also have q1_rad and so on)"
        )  # fmt: skip
        parser.add_argument("--rates", action="store_true", help="the columns are speeds already; compared as they are")
        parser.add_argument(
            "--longest-s", type=float, default=0.5, metavar="X", help="greatest delay sought (default 0.5 s)"
        )
        parser.add_argument("--name", metavar="NAME", help="the station's name of the camera, kept with the result")
        parser.add_argument(
            "--latency-s", type=float, metavar="X", help="of a camera: its latency_s, where the seen times are "
            "captured_s, from which it was taken off; left out, they are times of arrival"
        )  # fmt: skip
        parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the result, a picture beside it")

    def run(self, options: Namespace) -> Outcome:
        """Read, correlate, draw, write."""
        _check(options)
        columns = None if options.columns is None else [name.strip() for name in options.columns.split(",")]
        due_after_s: float | None = None
        speed = not options.rates
        if options.episodes:
            log = self.read_log(options.episodes, options.part, columns)
            names, inputs, due_after_s = log.columns, dict(log.files), log.due_after_s
            recordings = [
                (Signal(t_s=one.commanded_s, values=one.commanded), Signal(t_s=one.measured_s, values=one.measured))
                for one in log.stretches
            ]
            speed = options.part == "arm"  # a gripper is told steps, whose rate of change is all in one moment
            print(f"{len(inputs)} episodes, {len(recordings)} stretches without a hold or a gap")
        else:
            names, pair = read_pair(options.commanded, options.observed, columns)
            recordings = [pair]
            files = {"commanded": options.commanded, "observed": options.observed}
            inputs = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        found = find_common_delay(recordings, longest_s=options.longest_s, speed=speed)
        latency_s = camera_latency_s(found.delay_s, options.latency_s or 0.0) if options.part == "camera" else None
        values = {
            "inputs": inputs,
            "part": options.part,
            "name": options.name,
            "delay_s": found.delay_s,
            "interval_95_s": found.interval_95_s,
            "correlation": min(found.correlation, 1.0),
            "columns": names,
            "due_after_s": due_after_s,
            "latency_s": latency_s,
        }
        result = sealed(LatencyResult, values)
        line = _line(result)
        print("\n".join([line, *station_lines(result)]))
        picture = options.out.with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_delay(picture, found, line)
        print(f"picture {picture}")
        print(f"calibration {options.out}: sha256 {write_result(options.out, result)[:12]}")
        return Outcome(passed=True, document=document(result))


def _check(options: Namespace) -> None:
    """Raise BadInputError for options that do not go together."""
    if not 0.01 <= options.longest_s <= 10.0:
        raise BadInputError(f"--longest-s {options.longest_s:g}: allowed 0.01 to 10")
    if options.episodes and options.commanded is not None:
        raise BadInputError(f"{options.commanded} and --episodes: give two CSV files or episodes, not both")
    if options.episodes and options.part == "camera":
        raise BadInputError("--episodes: nobody looked for a target in their pictures; for a camera give two CSV files")
    if options.episodes and options.rates:
        raise BadInputError("--rates: episodes hold positions; leave it out")
    if not options.episodes and options.observed is None:
        raise BadInputError("two CSV files or --episodes are needed, what was commanded and what was observed")
    if options.latency_s is not None and options.part != "camera":
        raise BadInputError(f"--latency-s: is a camera's, not of {options.part}; leave it out")
    if options.latency_s is not None and not 0.0 <= options.latency_s <= 1.0:
        raise BadInputError(f"--latency-s {options.latency_s:g}: allowed 0 to 1")


def _line(result: LatencyResult) -> str:
    low, high = (1e3 * end for end in result.interval_95_s)
    since = ""
    if result.due_after_s is not None:
        begun_ms = 1e3 * (result.due_after_s + result.delay_s)
        what = "due" if result.part == "arm" else "sent"
        since = f" after it was {what}, {begun_ms:.1f} ms after its tick began"
    return (
        f"{result.part}: {1e3 * result.delay_s:.1f} ms late{since} (95 %: {low:.1f} to {high:.1f} ms), correlation "
        f"{result.correlation:.3f}, from {', '.join(result.columns)}"
    )

"""`calibrate_rig.py latency`: how late a camera, an arm or a gripper is."""

from __future__ import annotations

import csv
import hashlib
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from calibration.command import Outcome
from calibration.delay import Delay, Signal, find_delay
from calibration.delay_picture import draw_delay
from calibration.result import CalibrationResult, document, sealed, write_result
from robot.errors import BadInputError

SUMMARY = """Finds how much later one signal shows what another did: the delay of an arm, a gripper or a camera.

Both files have a line of names with `t` [s, one clock for both] and further columns; those of the same name are
compared, or those that --columns names. For an arm, give commanded and measured positions; for a gripper, commanded and
measured width; for a camera, the hand's speed as the arm measured it and as the camera saw it (--rates). Move
irregularly for 20 s or more. Exits with 1, and writes no file, where the signals do not tell."""
EXAMPLES = [
    "calibrate_rig.py latency arm commanded.csv measured.csv --out calibration/arm_latency.json",
    "calibrate_rig.py latency gripper commanded.csv measured.csv --columns width_m --out calibration/gripper.json",
    "calibrate_rig.py latency camera arm_speed.csv seen_speed.csv --rates --name front --out front_latency.json",
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LatencyResult(CalibrationResult):
    """How late something is.

    Attributes:
        part: what was measured, and its name in the station where it has one.
        delay_s: of the observed signal behind the commanded one [s].
        interval_95_s: lower and upper end [s].
        correlation: of the two at that delay.
        columns: which were compared.
    """

    kind: Literal["latency"] = "latency"
    part: Literal["camera", "arm", "gripper"]
    name: str | None = None
    delay_s: Annotated[float, Field(allow_inf_nan=False)]
    interval_95_s: tuple[float, float]
    correlation: Share
    columns: tuple[str, ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of latency."""
    parser.add_argument("part", choices=["camera", "arm", "gripper"], help="what is late")
    parser.add_argument("commanded", type=Path, metavar="CSV", help="what was asked for, or what the arm measured")
    parser.add_argument("observed", type=Path, metavar="CSV", help="what came of it")
    parser.add_argument("--columns", metavar="A,B", help="columns to compare (default: all that both files have)")
    parser.add_argument("--rates", action="store_true", help="the columns are speeds already; compare them as they are")
    parser.add_argument("--longest-s", type=float, default=0.5, metavar="X", help="greatest delay sought (default 0.5)")
    parser.add_argument("--name", metavar="NAME", help="the station's name of the camera, kept with the result")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the result, a picture beside it")


def run(options: Namespace) -> Outcome:
    """Read, correlate, draw, write."""
    if not 0.01 <= options.longest_s <= 10.0:
        raise BadInputError(f"--longest-s {options.longest_s:g}: allowed 0.01 to 10")
    commanded, observed = _read(options.commanded), _read(options.observed)
    columns = _columns(options, commanded, observed)
    found = find_delay(
        _signal(commanded, columns), _signal(observed, columns), longest_s=options.longest_s, speed=not options.rates
    )
    low, high = (1e3 * end for end in found.interval_95_s)
    line = (
        f"{options.part}: {1e3 * found.delay_s:.1f} ms late (95 %: {low:.1f} to {high:.1f} ms), correlation "
        f"{found.correlation:.3f}, from {', '.join(columns)}"
    )
    print(line)
    picture = options.out.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_delay(picture, found, line)
    print(f"picture {picture}")
    result = sealed(LatencyResult, _values(options, found, columns))
    print(f"calibration {options.out}: sha256 {write_result(options.out, result)[:12]}")
    return Outcome(passed=True, document=document(result))


def _values(options: Namespace, found: Delay, columns: list[str]) -> dict[str, object]:
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in (("commanded", options.commanded), ("observed", options.observed))
    }
    return {
        "inputs": hashes,
        "part": options.part,
        "name": options.name,
        "delay_s": found.delay_s,
        "interval_95_s": found.interval_95_s,
        "correlation": min(found.correlation, 1.0),
        "columns": columns,
    }


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path}: cannot be read as CSV ({error}); give a file with a line of names") from None
    names = [name.strip() for name in rows[0]] if rows else []
    if "t" not in names or len(names) < 2 or len(set(names)) != len(names):
        raise BadInputError(
            f"{path}: its first line must name `t` and further columns, each once; got {','.join(names)!r}"
        )
    values: list[list[float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            numbers = [float(word) for word in row]
        except ValueError:
            numbers = []
        if len(numbers) != len(names) or not all(map(math.isfinite, numbers)):
            raise BadInputError(f"{path}: line {number} is not {len(names)} finite numbers; correct or remove it")
        values.append(numbers)
    table = np.array(values, dtype=np.float64).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def _columns(options: Namespace, commanded: dict[str, np.ndarray], observed: dict[str, np.ndarray]) -> list[str]:
    both = [name for name in commanded if name in observed and name != "t"]
    if options.columns is None:
        if not both:
            raise BadInputError(
                f"{options.commanded} and {options.observed} share no column besides t; give columns the same name"
            )
        return both
    wanted = [name.strip() for name in options.columns.split(",")]
    missing = next((name for name in wanted if name not in both), None)
    if missing is not None:
        raise BadInputError(f"--columns: {missing!r} is not in both files; allowed {', '.join(both) or 'none'}")
    return wanted


def _signal(table: dict[str, np.ndarray], columns: list[str]) -> Signal:
    return Signal(t_s=table["t"], values=np.stack([table[name] for name in columns], axis=1))

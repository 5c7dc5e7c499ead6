#!/usr/bin/env python3
"""Tries every part of a station and says what is wrong: a preflight before a run."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

from environment import cli

from robot.clock import VirtualClock
from robot.recording import Recording
from teleop.preflight import PreflightOptions, Result, preflight

_WIDTH = 100


def main() -> int:
    """Print one table and a verdict; 1 when a check failed."""
    parser = cli.script(
        __doc__ or "",
        [
            "check_station.py launch/stations/sim_place.toml",
            "check_station.py launch/stations/sim_place.toml --operator gamepad --out runs/today",
            "check_station.py launch/stations/bridge_recorded.toml --recording bridge_real_robot.h5",
        ],
        station=True,
    )
    parser.add_argument("--operator", choices=["gamepad", "keyboard"], help="device that must be there")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder that the run will write to")
    parser.add_argument("--recording", type=Path, metavar="PATH", help="for a station that plays a recording")
    args = parser.read()
    recording = Recording.open(args.recording) if args.recording else None
    options = PreflightOptions(out=args.out, operator=args.operator, recording=recording)

    checks = []
    # simulated and recorded parts stand on the clock that they are given, so they need no waiting
    for check in preflight(args.station, VirtualClock(), options):
        checks.append(check)
        lines = textwrap.wrap(check.found, _WIDTH, break_long_words=False, break_on_hyphens=False)
        print(f"{check.part:<18} {check.result:<8} {lines[0]}", *lines[1:], sep="\n" + " " * 28, flush=True)
    failed = Counter(check.part for check in checks if check.result is Result.FAILED)
    name = args.station.station.name
    print(f"station '{name}': {'not ready, see ' + ', '.join(failed) if failed else 'ready'}")
    document = {
        "station": name,
        "path": args.station.path,
        "ready": not failed,
        "checks": [{"part": check.part, "result": check.result.lower(), "found": check.found} for check in checks],
    }
    cli.write_json(args.json, document)
    return cli.FAILED_CHECK if failed else cli.OK


if __name__ == "__main__":
    cli.run(main)

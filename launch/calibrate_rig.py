#!/usr/bin/env python3
"""Calibrates a rig, one subcommand a step; each keeps its result as a dated, hashed file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from environment import cli

try:
    from calibration import (
        command_board,
        command_check,
        command_extrinsics,
        command_hand_eye,
        command_intrinsics,
    )
    from calibration.command import Command
    from calibration.command_capture import CaptureCommand
    from calibration.command_latency import LatencyCommand
    from calibration.command_pictures import PicturesCommand
except ImportError as error:  # OpenCV is in the group `calibration`, which a robot's own environment can do without
    print(f"{sys.executable}: {error}; run ./launch/setup.sh, or pip install '.[calibration]'", file=sys.stderr)
    sys.exit(2)

from tqdm import tqdm

from teleop.logged_motion import LoggedMotion, Part, logged_motion
from teleop.recorded_drive import read_drives
from teleop.watched_rig import WatchedRig


def read_log(paths: Sequence[Path], part: Part, columns: Sequence[str] | None) -> LoggedMotion:
    """Return what episodes show of an arm or a gripper, with progress."""
    with tqdm(unit="episode", leave=False, disable=None) as bar:
        return logged_motion(paths, part, columns, progress=bar.update)


WITH_STATION = ("capture",)
INTO_FOLDERS = ("capture", "pictures")  # their --out is a folder, which they look at themselves
COMMANDS: dict[str, Command] = {
    "board": command_board,
    "capture": CaptureCommand(WatchedRig),
    "pictures": PicturesCommand(read_drives),
    "intrinsics": command_intrinsics,
    "hand-eye": command_hand_eye,
    "extrinsics": command_extrinsics,
    "latency": LatencyCommand(read_log),
    "check": command_check,
}


def main() -> int:
    """Do what the command line says; return the exit code."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        return calibrate(words[0], COMMANDS[words[0]], words[1:])
    told = "\n".join(f"  {name:<12} {command.SUMMARY.splitlines()[0]}" for name, command in COMMANDS.items())
    examples = [command.EXAMPLES[0] for command in COMMANDS.values()]
    parser = cli.script(f"{__doc__}\n\n{told}\n\n`hand-eye --help` and the like tell more.", examples)
    parser.add_argument("what", choices=list(COMMANDS))
    parser.read(words[:1])
    return cli.OK


def calibrate(name: str, command: Command, words: Sequence[str]) -> int:
    """Run one subcommand; return the exit code."""
    parser = cli.script(command.SUMMARY, command.EXAMPLES, station=name in WITH_STATION)
    parser.prog = f"calibrate_rig.py {name}"
    command.add_arguments(parser)
    options = parser.read(words)
    for option in ("out", "picture"):
        if getattr(options, option, None) is not None and name not in INTO_FOLDERS:
            cli.check_writable(getattr(options, option), f"--{option}")  # before minutes of work, and not after them
    outcome = command.run(options)
    if not outcome.passed:
        return cli.FAILED_CHECK
    cli.write_json(options.json, outcome.document)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

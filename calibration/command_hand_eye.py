"""`calibrate_rig.py hand-eye`: where the camera sits on the hand, from poses of the arm and of the target."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from calibration.command import Outcome

SUMMARY = "Finds where the camera sits on the hand, or beside the arm, and how late its times are."
EXAMPLES = [
    "calibrate_rig.py hand-eye --robot-poses robot.csv --target-poses target.csv --out calibration/wrist.json",
]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of hand-eye."""
    parser.add_argument("--robot-poses", type=Path, required=True, metavar="CSV", help="T_base_hand over time")
    parser.add_argument("--target-poses", type=Path, required=True, metavar="CSV", help="T_target_camera over time")


def run(options: Namespace) -> Outcome:
    """Solve, check and report."""
    raise NotImplementedError  # the next commit

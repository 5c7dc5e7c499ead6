"""`calibrate_rig.py check`: whether the rig still is as it was calibrated, in a minute."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from calibration.command import Outcome
from calibration.drift import DRIFT_DEG, DRIFT_MM, LEAST_SHOTS, CameraDrift, check_rig
from calibration.drift_picture import draw_drift
from calibration.extrinsics_result import ExtrinsicsResult
from calibration.picture_views import PictureView
from calibration.pose_file import read_pose_file
from calibration.result import read_result
from calibration.rig_pictures import NamedLens, gather
from robot.errors import BadInputError

SUMMARY = """Checks in a minute whether the cameras still are where the calibration says.

Show the board again in 3 to 10 shots, in folders as for `extrinsics`. With --board-on free, cameras are compared with
each other; with hand or base and the arm's poses, with where the arm puts the board (--same-place: where it was
when the rig was calibrated). Exits with 1, and says by how much, where a camera has moved or its lens has changed."""
EXAMPLES = [
    "calibrate_rig.py check calibration/rig.json today --board-on free",
    "calibrate_rig.py check calibration/rig.json today --board-on hand --arm-poses today/arm.csv --same-place",
]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of check."""
    parser.add_argument("calibration", type=Path, metavar="JSON", help="result of extrinsics")
    parser.add_argument("shots", type=Path, metavar="FOLDER", help="FOLDER/<camera>/<shot>.png")
    parser.add_argument("--board-on", choices=["hand", "base", "free"], required=True, help="what the board is on now")
    parser.add_argument("--arm-poses", type=Path, metavar="CSV", help="T_base_hand of each shot")
    parser.add_argument("--same-place", action="store_true", help="the board is mounted as when the rig was calibrated")
    parser.add_argument("--limit-mm", type=float, default=DRIFT_MM, metavar="X", help=f"default {DRIFT_MM:g}")
    parser.add_argument("--limit-deg", type=float, default=DRIFT_DEG, metavar="X", help=f"default {DRIFT_DEG:g}")
    parser.add_argument("--session", type=Path, metavar="FOLDER", help="what was gathered (default: FOLDER/session)")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="of every sighting (default: drift.png in the session)"
    )


def run(options: Namespace) -> Outcome:
    """Look again, compare, say."""
    result, _ = read_result(options.calibration, ExtrinsicsResult)
    if options.same_place and (options.board_on != result.board_mount or result.T_mount_board is None):
        raise BadInputError(
            f"--same-place: the rig was calibrated with the board on {result.board_mount}; leave it out, or mount the "
            "board as it was"
        )
    for name, value in (("limit-mm", options.limit_mm), ("limit-deg", options.limit_deg)):
        if not 0.0 < value <= 1000.0:
            raise BadInputError(f"--{name} {value:g}: allowed above 0, up to 1000")
    if options.picture is not None and options.picture.suffix.lower() != ".png":
        raise BadInputError(f"--picture {options.picture}: must end in .png")
    there = [name for name in result.cameras if (options.shots / name).is_dir()]
    if not there:
        raise BadInputError(f"{options.shots}: has no folder of a camera; there are {', '.join(result.cameras)}")
    lenses = [NamedLens(name=n, mount=result.cameras[n].mount, model=result.cameras[n].lens) for n in there]
    session = options.session or options.shots / "session"
    arm = read_pose_file(options.arm_poses) if options.arm_poses else None
    with tqdm(unit="picture", disable=None) as bar:

        def progress(name: str, picture: PictureView) -> None:
            bar.set_description_str(name, refresh=False)
            bar.update()

        rig, _ = gather(options.shots, result.board, options.board_on, lenses, arm, session, progress)
    drifts = check_rig(
        rig,
        [np.array(result.cameras[name].T_mount_camera) for name in there],
        np.array(result.T_mount_board) if options.same_place else None,
        [result.cameras[name].rms_px for name in there],
        drift_mm=options.limit_mm,
        drift_deg=options.limit_deg,
    )
    age = datetime.now(UTC) - datetime.fromisoformat(result.created_utc)
    print(f"{options.calibration}: {age.days} days old, {result.content_sha256[:12]}")
    for line in report(drifts):
        print(line)
    picture = options.picture or session / "drift.png"
    draw_drift(
        picture, drifts, (options.limit_mm, options.limit_deg), f"{options.calibration.name}, {age.days} days old"
    )
    print(f"picture {picture}")
    absent = [name for name in result.cameras if name not in there]
    if absent:
        print(f"not looked at: {', '.join(absent)}")
    warnings = [line for one in drifts for line in one.warnings]
    for line in warnings:
        print(f"DRIFT: {line}")
    unknown = [one for one in drifts if one.shots < LEAST_SHOTS and not one.warnings]
    for one in unknown:
        print(
            f"NOT COMPARED: camera '{one.name}' in {one.shots} sightings only, {LEAST_SHOTS} are needed; show it the "
            "board together with another camera, or leave out its folder"
        )
    passed = not warnings and not unknown
    if passed:
        print("nothing has moved")
    cameras = {one.name: dataclasses.asdict(one) for one in drifts}
    return Outcome(passed=passed, document={"calibration": result.content_sha256, "cameras": cameras})


def report(drifts: list[CameraDrift]) -> list[str]:
    """Return one line for each camera."""
    lines = []
    for one in drifts:
        moved = (
            "nothing to compare it with"
            if one.translation_mm is None
            else f"{one.translation_mm:.2f} mm, {one.rotation_deg:.3f} degrees (medians of {one.shots} sightings)"
        )
        lens = "" if one.lens_px is None else f"; lens {one.lens_px:.2f} px, then {one.lens_then_px:.2f} px"
        lines.append(f"{one.name:<10} {moved}{lens}")
    return lines

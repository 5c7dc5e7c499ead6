"""`calibrate_rig.py extrinsics`: where all cameras of a rig are, in one bundle adjustment."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from calibration.board import Board
from calibration.command import Outcome
from calibration.extrinsics import Extrinsics, adjust
from calibration.extrinsics_picture import draw_extrinsics
from calibration.extrinsics_result import ExtrinsicsResult
from calibration.intrinsics_result import IntrinsicsResult
from calibration.picture_views import PictureView
from calibration.pose_file import read_pose_file
from calibration.reprojection import lens_root_px
from calibration.result import document, read_result, write_result
from calibration.rig_pictures import NamedLens, gather, named_paths
from calibration.rig_sightings import Mount, RigSightings
from robot.errors import BadInputError

SUMMARY = """Finds where all cameras are, beside the arm and on the hand, in one bundle adjustment.

FOLDER holds a folder for each camera, with one picture per shot; pictures of one name are one shot, in which nothing
moves. Where the arm's poses are needed, pictures are named by the `t` of their row (t,x,y,z,qx,qy,qz,qw: T_base_hand).
The board is held by the arm (--board-on hand; best for cameras beside the arm), stays where it is (base; for cameras on
the hand), or is put elsewhere for each shot (free; ties both kinds together). 15 to 30 shots, the hand turned by 30
degrees and more about two or three axes. What pictures show is kept in the session folder; starting again goes on.
Exits with 1, and writes no file, where held-out shots are off by more than 5 mm or 0.5 degrees (medians), or a camera
is known to no better than 10 mm or 1 degree (95 %)."""
EXAMPLES = [
    "calibrate_rig.py extrinsics shots --board calibration/board.json --camera front=calibration/front.json "
    "--camera side=calibration/side.json --arm-poses shots/arm.csv --board-on hand --out calibration/rig.json",
    "calibrate_rig.py extrinsics shots --board calibration/board.json --camera front=front.json "
    "--hand-camera wrist=wrist.json --arm-poses arm.csv --board-on free --out rig.json",
]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of extrinsics."""
    parser.add_argument("shots", type=Path, metavar="FOLDER", help="FOLDER/<camera>/<shot>.png")
    parser.add_argument("--board", type=Path, required=True, metavar="JSON", help="description of the board")
    parser.add_argument(
        "--camera", action="append", default=[], metavar="NAME=JSON", help="camera beside the arm and its intrinsics"
    )
    parser.add_argument(
        "--hand-camera", action="append", default=[], metavar="NAME=JSON", help="camera on the hand and its intrinsics"
    )
    parser.add_argument("--arm-poses", type=Path, metavar="CSV", help="T_base_hand of each shot")
    parser.add_argument("--board-on", choices=["hand", "base", "free"], required=True, help="what the board is on")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the result, a picture beside it")
    parser.add_argument("--session", type=Path, metavar="FOLDER", help="what was gathered (default: OUT_session)")
    parser.add_argument(
        "--hold-lenses",
        action="store_true",
        help="take the lenses as exact; left out, they may move as far as their own calibration was unsure",
    )


def run(options: Namespace) -> Outcome:
    """Detect, adjust, judge, draw, and write the result where it may be used."""
    board = Board.read(options.board)
    lenses, inputs = _lenses(options)
    arm = read_pose_file(options.arm_poses) if options.arm_poses else None
    if arm is not None:
        inputs["arm poses"] = arm.sha256
    session = options.session or options.out.with_name(f"{options.out.stem}_session")
    with tqdm(unit="picture", disable=None) as bar:

        def progress(name: str, picture: PictureView) -> None:
            bar.set_description_str(name, refresh=False)
            bar.update()

        rig, hashes = gather(options.shots, board, options.board_on, lenses, arm, session, progress)
    for line in _seen(rig):
        print(line)
    with tqdm(unit="step", disable=None) as bar:

        def step(words: str) -> None:
            bar.set_description_str(words)
            bar.update()

        found = adjust(rig, hold_lenses=options.hold_lenses, progress=step)
    picture = options.out.with_suffix(".png")
    for line in report(found):
        print(line)
    why = found.refusals()
    for line in why:
        print(f"refused: {line}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_extrinsics(picture, found, f"{options.shots}: {'REFUSED' if why else 'accepted'}")
    print(f"picture {picture}")
    if why:
        return Outcome(passed=False)
    result = ExtrinsicsResult.of(found, {**inputs, **hashes}, held=options.hold_lenses)
    print(f"calibration {options.out}: sha256 {write_result(options.out, result)[:12]}")
    return Outcome(passed=True, document=document(result))


def report(found: Extrinsics) -> list[str]:
    """Return the lines for people."""
    lines = []
    for camera, T, half in zip(found.cameras, found.T_mount_camera, found.half_widths, strict=True):
        place = ", ".join(f"{1e3 * v:.2f} +- {1e3 * h:.2f}" for v, h in zip(T[:3, 3], half[:3], strict=True))
        turn = ", ".join(f"{np.degrees(h):.3f}" for h in half[3:])
        lines.append(f"T_{camera.mount}_{camera.name:<8} [{place}] mm, rotation +- [{turn}] degrees")
    rig = found.rig
    for one in found.left_out:
        lines.append(f"left out: {rig.cameras[one.camera].name}/{rig.shots[one.shot]} contradicts the others")
    mm = [1e3 * one.distance_m for one in found.held_out]
    degrees = [np.degrees(one.angle_rad) for one in found.held_out]
    lines.append(
        f"held out: {np.median(mm):.2f} mm, {np.median(degrees):.3f} degrees (medians); {np.quantile(mm, 0.9):.2f} mm, "
        f"{np.quantile(degrees, 0.9):.3f} degrees (p90); corners {found.sigma_px:.3f} px (deviation of a coordinate)"
    )
    return lines


def _lenses(options: Namespace) -> tuple[list[NamedLens], dict[str, str]]:
    lenses: list[NamedLens] = []
    inputs: dict[str, str] = {}
    beside = named_paths(options.camera, "--camera")
    on_hand = named_paths(options.hand_camera, "--hand-camera")
    if both := sorted(set(beside) & set(on_hand)):
        raise BadInputError(f"camera '{both[0]}': given as --camera and as --hand-camera; leave one out")
    if not beside and not on_hand:
        raise BadInputError("no camera; name one at least with --camera NAME=JSON or --hand-camera NAME=JSON")
    for name, path in {**beside, **on_hand}.items():
        result, data = read_result(path, IntrinsicsResult)
        inputs[f"intrinsics of {name}"] = hashlib.sha256(data).hexdigest()
        root_px = lens_root_px(np.array(result.covariance), result.sigma_px)
        mount: Mount = "base" if name in beside else "hand"
        lenses.append(NamedLens(name=name, mount=mount, model=result.camera, root_px=root_px))
    return lenses, inputs


def _seen(rig: RigSightings) -> list[str]:
    lines = []
    for number, camera in enumerate(rig.cameras):
        own = [one for one in rig.sightings if one.camera == number]
        unposed = sum(rig.needs_arm(number) and rig.T_base_hand[one.shot] is None for one in own)
        without = f"; {unposed} of them without a pose of the arm" if unposed else ""
        lines.append(f"{camera.name}: the board in {len(own)} of {len(rig.shots)} shots{without}")
    return lines

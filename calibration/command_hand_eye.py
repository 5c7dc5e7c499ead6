"""`calibrate_rig.py hand-eye`: where the camera is, on the hand or beside the arm, from poses of arm and target."""

from __future__ import annotations

import hashlib
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.board import Board
from calibration.command import Outcome
from calibration.hand_eye import Calibrated, calibrate, other_way
from calibration.hand_eye_plot import draw_hand_eye
from calibration.hand_eye_result import HandEyeResult
from calibration.intrinsics_result import IntrinsicsResult
from calibration.pairing import pair
from calibration.picture_poses import poses_from_pictures
from calibration.picture_views import PictureView, ViewsFile
from calibration.pose_file import PoseFile, read_pose_file
from calibration.result import document, read_result, sealed, write_result
from calibration.sightings import Sightings
from robot.errors import BadInputError

Array = NDArray[np.float64]
SUMMARY = """Finds where the camera is, on the hand or beside the arm, and how late its times are.

Both files hold rows t,x,y,z,qx,qy,qz,qw [s, m], a line of names before them if you like. The arm's are T_base_hand,
the target's T_target_camera (the pose of the camera in the target's frame). Each file has a clock of its own; the
offset that is found is what has to be added to the target's times. Move for 30 s while the camera sees the target,
and turn the hand by 30 degrees and more about two or three axes. Stills work as well: rows of equal times in both
files, 15 or more of them; they have no offset.

In place of the target's file, --pictures takes a folder of pictures of the board, each named by its time; for stills
that is the t of its row in the arm's file (3.png, 17.5.png).

The result is refused (exit code 1, no file) when the medians of held-out errors exceed 5 mm or 0.5 degrees, when less
than half of the sightings agree, or when the camera's pose is known to no better than 10 mm and 1 degree (95 %);
--force keeps it all the same. Motion that cannot tell (one rotation axis, pure translation, fewer than 4 poses) is
refused with the reason and exit code 1, and --force does not help. Files that cannot be used are exit code 2."""
EXAMPLES = [
    "calibrate_rig.py hand-eye --robot-poses robot.csv --target-poses target.csv --out calibration/wrist.json",
    "calibrate_rig.py hand-eye --robot-poses robot.csv --target-poses target.csv --eye-to-hand --json front.json",
    "calibrate_rig.py hand-eye --robot-poses arm.csv --pictures shots/wrist --board calibration/board.json "
    "--intrinsics calibration/wrist_lens.json --out calibration/wrist.json",
]
_FILES = {False: ("T_hand_camera", "T_base_target"), True: ("T_base_camera", "T_hand_target")}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of hand-eye."""
    parser.add_argument("--robot-poses", type=Path, required=True, metavar="CSV", help="T_base_hand over time")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--target-poses", type=Path, metavar="CSV", help="T_target_camera over time")
    target.add_argument("--pictures", type=Path, metavar="FOLDER", help="of the board, named by their times")
    parser.add_argument("--board", type=Path, metavar="JSON", help="description of the board, with --pictures")
    parser.add_argument("--intrinsics", type=Path, metavar="JSON", help="the camera's lens, with --pictures")
    parser.add_argument(
        "--eye-to-hand",
        action="store_true",
        help="the camera stands beside the arm and the target is on the hand; gives T_base_camera and T_hand_target",
    )
    parser.add_argument("--camera", metavar="NAME", help="the station's name of the camera, kept with the result")
    parser.add_argument("--out", type=Path, metavar="PATH", help="calibration file (JSON), with a picture beside it")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="of the residuals, also of a refused result (default beside --out)"
    )
    parser.add_argument("--force", action="store_true", help="keep the result though a check failed; it is marked")


def run(options: Namespace) -> Outcome:
    """Read, solve, report, keep."""
    for option, path in (("--out", options.out), ("--picture", options.picture)):
        if path is not None and path.is_dir():
            raise BadInputError(f"{option} {path}: is a folder; name a file in it")
    robot, target, inputs = _read(options)
    for file in (robot, target):
        for note in file.notes:
            print(f"{file.path}: {note}")
    seen, notes = pair(robot, target, beside=options.eye_to_hand)
    for note in notes:
        print(note)
    found = _with_progress(seen)
    for line in report(found):
        print(line)
    picture = options.picture or (options.out.with_suffix(".png") if options.out else None)
    if found.failures:
        for failure in found.failures:
            print(f"FAILED: {failure}", file=sys.stderr)
        if other_way(found):
            print(_other_way(beside=options.eye_to_hand), file=sys.stderr)
        if options.picture is not None:
            draw_hand_eye(options.picture, found)
        if not options.force:
            print("nothing was written; --force keeps it all the same", file=sys.stderr)
            return Outcome(passed=False)
    result = sealed(HandEyeResult, _values(found, inputs, options.camera))
    if options.out is not None:
        print(f"calibration {options.out}: sha256 {write_result(options.out, result)[:12]}")
    if picture is not None:
        draw_hand_eye(picture, found)
        print(f"picture {picture}")
    return Outcome(passed=True, document=document(result))


def _read(options: Namespace) -> tuple[PoseFile, PoseFile, dict[str, str]]:
    """Return the poses of arm and target, and the SHA-256 of all that they come from."""
    given = {"--board": options.board, "--intrinsics": options.intrinsics}
    for option, path in given.items():
        if (path is None) != (options.pictures is None):
            what = "missing; --pictures needs it" if path is None else "given without --pictures; leave it out"
            raise BadInputError(f"{option}: {what}")
    robot = read_pose_file(options.robot_poses)
    inputs = {"robot_poses": robot.sha256}
    if options.pictures is None:
        target = read_pose_file(options.target_poses)
        return robot, target, {**inputs, "target_poses": target.sha256}
    board = Board.read(options.board)
    lens, data = read_result(options.intrinsics, IntrinsicsResult)
    session = options.out.with_name(f"{options.out.stem}_session") if options.out else None
    store = ViewsFile(session / "views.jsonl") if session else None
    with tqdm(unit="picture", disable=None, leave=False) as bar:

        def progress(picture: PictureView) -> None:
            bar.update()

        target = poses_from_pictures(options.pictures, board, lens.camera, store, progress)
    inputs |= {"board": board.sha256, "intrinsics": hashlib.sha256(data).hexdigest(), "pictures": target.sha256}
    return robot, target, inputs


def report(found: Calibrated) -> list[str]:
    """Return the lines for people."""
    X_name, Y_name = _FILES[found.seen.inverted]
    estimate, half, judged = found.fit.estimate, found.uncertainty.half_width, found.held_out
    lines = [
        _pose_line(X_name, estimate.X, half[0:6]),
        _pose_line(Y_name, estimate.Y, half[6:12]),
    ]
    if found.fit.free[12]:
        lines.append(
            f"time offset   {1e3 * estimate.offset_s:.2f} +- {1e3 * half[12]:.2f} ms, added to the target's times"
        )
    lines.append(f"(+- is the 95 % interval, from {found.uncertainty.blocks} independent stretches)")
    for name, chosen in (("inliers", judged.inlier), ("all", np.ones(len(judged.inlier), bool))):
        if chosen.any():
            mm, degrees = 1e3 * judged.translation_m[chosen], np.rad2deg(judged.rotation_rad[chosen])
            lines.append(
                f"held out, {name:<8} {int(chosen.sum()):>5}: {np.median(mm):.2f} mm, {np.median(degrees):.3f} degrees "
                f"(medians); {np.quantile(mm, 0.9):.2f} mm, {np.quantile(degrees, 0.9):.3f} degrees (p90)"
            )
    return lines + [f"note: {warning}" for warning in found.warnings]


def _pose_line(name: str, T: Array, half: Array) -> str:
    position = ", ".join(
        f"{1e3 * value:.2f} +- {1e3 * wide:.2f}" for value, wide in zip(T[:3, 3], half[3:6], strict=True)
    )
    turn = ", ".join(f"{np.rad2deg(wide):.3f}" for wide in half[0:3])
    return f"{name:<13} [{position}] mm, rotation +- [{turn}] degrees"


def _other_way(*, beside: bool) -> str:
    if beside:
        return (
            "the poses fit a camera on the hand far better: leave --eye-to-hand out, or, if the camera does stand "
            "beside the arm, the target file holds T_camera_target and wants its inverse"
        )
    return (
        "the poses fit a camera beside the arm far better: add --eye-to-hand, or, if the camera is on the hand, the "
        "target file holds T_camera_target and wants its inverse"
    )


def _with_progress(seen: Sightings) -> Calibrated:
    with tqdm(unit="step", disable=None, leave=False) as bar:

        def progress(done: int, total: int, doing: str) -> None:
            bar.total = total
            bar.set_description(doing, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        return calibrate(seen, progress)


def _values(found: Calibrated, inputs: dict[str, str], camera: str | None) -> dict[str, Any]:
    """Return the values of the calibration file."""
    estimate, half, judged = found.fit.estimate, found.uncertainty.half_width, found.held_out
    X_name, Y_name = _FILES[found.seen.inverted]
    every = np.ones(len(judged.inlier), bool)
    intervals: dict[str, Any] = {
        X_name: _pose_interval(estimate.X, half[0:6]),
        Y_name: _pose_interval(estimate.Y, half[6:12]),
    }
    if found.fit.free[12]:
        intervals["time_offset_s"] = (estimate.offset_s - half[12], estimate.offset_s + half[12])
    return {
        "inputs": inputs,
        "setup": "eye-to-hand" if found.seen.inverted else "eye-in-hand",
        "camera": camera,
        X_name: estimate.X.tolist(),
        Y_name: estimate.Y.tolist(),
        "time_offset_s": estimate.offset_s,
        "time_offset_sought": bool(found.fit.free[12]),
        "intervals_95": intervals,
        **_spreads(found, judged.inlier if judged.inlier.any() else every),
        "held_out_all": {**_spreads(found, every), "folds": judged.folds},
        "sightings": len(found.seen),
        "inliers": int(judged.inlier.sum()),
        "covariance": found.uncertainty.covariance.tolist(),
        "blocks": found.uncertainty.blocks,
        "seed": found.seed.method,
        "motion": {"frame": found.diversity.frame, "turned_deg": found.diversity.turned_deg.tolist()},
        "forced": bool(found.failures),
        "warnings": (*found.failures, *found.warnings),
    }


def _spreads(found: Calibrated, chosen: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    mm = 1e3 * found.held_out.translation_m[chosen]
    degrees = np.rad2deg(found.held_out.rotation_rad[chosen])
    return {
        name: {"median": float(np.median(errors)), "p90": float(np.quantile(errors, 0.9))}
        for name, errors in (("translation_mm", mm), ("rotation_deg", degrees))
    }


def _pose_interval(T: Array, half: Array) -> dict[str, Any]:
    turn = np.rad2deg(half[0:3])
    return {
        "position_m": np.stack([T[:3, 3] - half[3:6], T[:3, 3] + half[3:6]], axis=1).tolist(),
        "rotation_deg": np.stack([-turn, turn], axis=1).tolist(),
    }

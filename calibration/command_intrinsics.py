"""`calibrate_rig.py intrinsics`: a camera's lens, from pictures of the board."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from calibration.board import Board, BoardView
from calibration.command import Outcome
from calibration.coverage import Coverage, coverage
from calibration.intrinsics import KINDS, LEAST_VIEWS, Intrinsics, calibrate, rough_poses
from calibration.intrinsics_picture import draw_coverage, draw_intrinsics
from calibration.intrinsics_result import IntrinsicsResult, refusals
from calibration.picture_views import (
    PictureView,
    ViewsFile,
    check_board_seen,
    check_one_size,
    look,
    picture_files,
)
from calibration.result import document, write_result
from calibration.sharpness import blurred, duplicates
from perception.camera_model import CameraModel, Kind
from robot.errors import BadInputError

SUMMARY = """Finds a camera's focal lengths, principal point and distortion from pictures of the board.

15 to 40 pictures will do. Show the board in every part of the picture, near and far, and tilted to all four sides; part
of it is enough. What is missing is said, and drawn in SESSION/coverage.png. What each picture shows is kept in the
session folder, so after adding pictures only the new ones are looked at. Exits with 1, and writes no file, where
pictures that were held out are explained to no better than 1 px."""
EXAMPLES = [
    "calibrate_rig.py intrinsics pictures/front --board calibration/board.json --out calibration/front.json",
    "calibrate_rig.py intrinsics pictures/front --board calibration/board.json --out front.json --lens fisheye",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sorted:
    """The pictures that count, and why the others do not."""

    used: list[PictureView]
    reasons: Counter[str]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of intrinsics."""
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="pictures of the board, all of one size")
    parser.add_argument("--board", type=Path, required=True, metavar="JSON", help="description of the board")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the result")
    parser.add_argument("--session", type=Path, metavar="FOLDER", help="what was gathered (default: OUT_session)")
    parser.add_argument(
        "--lens",
        choices=["auto", "pinhole", *KINDS],
        default="auto",
        help="auto (default) takes the simplest that explains pictures held out as well as any",
    )


def run(options: Namespace) -> Outcome:
    """Detect, fit, judge, draw, and write the result where it may be used."""
    board = Board.read(options.board)
    files = picture_files(options.pictures)
    session = options.session or options.out.with_name(f"{options.out.stem}_session")
    store = ViewsFile(session / "views.jsonl")
    with tqdm(total=len(files), unit="picture", disable=None) as bar:
        seen = 0

        def progress(picture: PictureView) -> None:
            nonlocal seen
            seen += picture.view is not None
            bar.set_postfix_str(f"{seen} with the board", refresh=False)
            bar.update()

        pictures = look(files, board, store, progress)
    check_board_seen(pictures, files, board)
    check_one_size(pictures, options.pictures)
    chosen = _sorted(pictures)
    views = [picture.view for picture in chosen.used if picture.view is not None]
    print(f"{len(views)} of {len(files)} pictures are of use{_reasons(chosen.reasons)}")
    if len(views) < LEAST_VIEWS:
        covered = _coverage(board, views, None)
        draw_coverage(session / "coverage.png", views, covered, f"{len(views)} views of {options.pictures}")
        raise BadInputError(
            f"{options.pictures}: {len(views)} usable pictures, at least {LEAST_VIEWS} are needed"
            f"{_reasons(chosen.reasons)}; take more, see {session / 'coverage.png'}"
        )
    with tqdm(unit="step", disable=None) as bar:

        def step(words: str) -> None:
            bar.set_description_str(words)
            bar.update()

        kinds: Sequence[Kind] = KINDS if options.lens == "auto" else (options.lens,)
        found = calibrate(board, views, kinds, step)
    covered = _coverage(board, views, found)
    title = f"{options.pictures}: {found.fit.model.kind} lens, held-out {found.held_out.rms_px:.2f} px rms"
    draw_intrinsics(session / "residuals.png", views, found, covered, title)
    draw_coverage(session / "coverage.png", views, covered, f"{len(views)} views of {options.pictures}")
    _tell(found, covered, session)
    why = refusals(found)
    for line in why:
        print(f"refused: {line}")
    if why:
        return Outcome(passed=False)
    names = {picture.name: picture.sha256 for picture in chosen.used}
    result = IntrinsicsResult.of(found, board, names, covered.advice)
    print(f"calibration {options.out}: sha256 {write_result(options.out, result)[:12]}")
    return Outcome(passed=True, document=document(result))


def _sorted(pictures: Sequence[PictureView]) -> _Sorted:
    reasons: Counter[str] = Counter(picture.why_not for picture in pictures if picture.view is None)
    there = [picture for picture in pictures if picture.view is not None]
    sharp = [picture for picture, bad in zip(there, blurred([one.edge_px for one in there]), strict=True) if not bad]
    reasons["is blurred"] = len(there) - len(sharp)
    again = duplicates([picture.view for picture in sharp if picture.view is not None])
    reasons["shows the board where another does"] = int(again.sum())
    return _Sorted(used=[picture for picture, bad in zip(sharp, again, strict=True) if not bad], reasons=+reasons)


def _reasons(reasons: Counter[str]) -> str:
    return "".join(f"; {count} {reason}" for reason, count in reasons.most_common())


def _coverage(board: Board, views: Sequence[BoardView], found: Intrinsics | None) -> Coverage:
    middle = np.array([0.5 * board.size_m[0], 0.5 * board.size_m[1], 0.0])
    poses = found.fit.poses if found else rough_poses(board, views)
    return coverage(views, poses, middle)


def _tell(found: Intrinsics, covered: Coverage, session: Path) -> None:
    model: CameraModel = found.fit.model
    print(f"lens: {model.kind}, {model.width}x{model.height}; 95 % intervals")
    for name, value, half in zip(model.names, model.values, found.fit.half_widths, strict=True):
        unit = " px" if name in ("fx", "fy", "cx", "cy") else ""
        print(f"  {name:<3} {value:>11.5g} +- {half:.2g}{unit}")
    if len(found.tried) > 1:
        print("held-out rms by lens: " + ", ".join(f"{kind} {rms:.3f} px" for kind, rms in found.tried.items()))
    out = found.held_out
    print(f"held out: rms {out.rms_px:.3f} px, median {out.median_px:.3f} px, p90 {out.p90_px:.3f} px")
    dropped = sum(int((~keep).sum()) for keep in found.fit.kept)
    if dropped:
        print(f"{dropped} corners lie too far off to be what they seem and were left out")
    for line in covered.advice:
        print(f"better: {line}")
    print(f"pictures: {session / 'residuals.png'}, {session / 'coverage.png'}")

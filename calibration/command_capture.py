"""`calibrate_rig.py capture`: shots of the board from a station's own cameras and arm, as the later steps read them."""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from calibration.board import Board
from calibration.capture import Capture
from calibration.capture_screen import missing_lines, screen
from calibration.command import Outcome
from calibration.live_rig import LiveRig
from calibration.picture_views import PictureView
from calibration.shots_folder import ARM, ShotsFolder
from calibration.terminal import Terminal
from robot.errors import BadInputError, HardwareError

_COUNT = 30
_MOST = 500
_NEWS = 3
_IDLE_S = 120.0  # without a new shot, where nobody is there who could end it


class OpenRig(Protocol):
    """Makes a rig of a station, not yet entered; raises BadInputError where the station has no such cameras."""

    def __call__(self, station: Any, *, cameras: Sequence[str], arm: bool) -> LiveRig: ...  # noqa: D102


class CaptureCommand:
    """The subcommand, a `calibration.command.Command`.

    Args:
        open_rig: makes the rig that is looked at.
    """

    SUMMARY = """Takes shots of the board from a station's cameras, with the arm's poses, and says what is missing.

It opens the station's cameras and reads the arm. It never moves the arm and cannot: the arm's process is started to
read only. Move it by hand guiding, or with the maker's own tool. An arm that another run drives belongs to that run,
and so do its cameras: let that run record full-size pictures, and make shots of its episodes with `pictures`.

A shot is taken by itself when each camera that sees the board has seen it at rest for half a second, the hand rests,
the picture is sharp and the view is not among the shots yet; the bell rings. Enter takes one at once, q ends; both need
a terminal (`ssh -t`). What comes out, FOLDER/<camera>/<number>.png of full size, lossless, and FOLDER/arm.csv, is what
`intrinsics`, `hand-eye --pictures`, `extrinsics` and `check` read. Starting again goes on. Exits with 1 without a
shot, and without a terminal after two minutes without a new one."""
    EXAMPLES = (
        "calibrate_rig.py capture station.toml --out shots --board calibration/board.json",
        "calibrate_rig.py capture station.toml --out shots --board calibration/board.json --camera front --camera side "
        "--no-arm --count 40",
    )

    def __init__(self, open_rig: OpenRig) -> None:
        self._open_rig = open_rig

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of capture; the station is there already."""
        parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the shots go, or go on")
        parser.add_argument("--board", type=Path, required=True, metavar="JSON", help="description of the board")
        parser.add_argument(
            "--camera", action="append", default=[], metavar="NAME", help="only this one; may be given several times"
        )
        parser.add_argument(
            "--count", type=_count, default=_COUNT, metavar="N", help=f"end with so many shots (default {_COUNT})"
        )
        parser.add_argument("--no-arm", action="store_true", help="cameras alone, for those that stand beside the arm")

    def run(self, options: Namespace) -> Outcome:
        """Open, look, keep, until there are enough or the person ends it."""
        board = Board.read(options.board)
        rig = self._open_rig(options.station, cameras=options.camera, arm=not options.no_arm)
        folder = ShotsFolder(options.out, station=rig.station, board=board, sizes=rig.sizes)
        with Capture(folder, board, rig.sizes, has_arm=rig.has_arm) as capture:
            with tqdm(unit="picture", desc="shots that are there", disable=None, leave=False) as bar:

                def progress(picture: PictureView) -> None:
                    bar.update()

                capture.resume(progress)
            before = capture.count
            _check_room(folder.path, rig.sizes, options.count - before)
            failure = None if before >= options.count else _watch(rig, capture, options.count)
            for line in _summary(capture, before, options):
                print(line)
            if failure is not None:
                print(failure, file=sys.stderr)
            return Outcome(passed=failure is None and capture.count > 0, document=_document(capture))


def _watch(rig: LiveRig, capture: Capture, count: int) -> str | None:
    """Look until there are `count` shots or the person ends it; return what broke, if anything."""
    news: deque[str] = deque(maxlen=_NEWS)
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal())
        terminal.say(f"opening {', '.join(rig.sizes)}{' and the arm, to read only' if rig.has_arm else ''}")
        try:
            stack.enter_context(rig)
            shot_s: float | None = None  # when the last one was taken, or the first look
            while capture.count < count:
                keys = terminal.keys()
                if "q" in keys or "Q" in keys:
                    break
                take = "\n" in keys or "\r" in keys
                look = rig.look()
                news.extend(look.news)
                shot = capture.step(look, take=take)
                if shot is not None:
                    terminal.say(shot.words, ring=True)
                elif take:
                    news.append(f"nothing was taken: {capture.waits_for} is waited for")
                shot_s = look.now_s if shot is not None or shot_s is None else shot_s
                if not terminal.interactive and look.now_s - shot_s > _IDLE_S:
                    return (
                        f"capture ended: no new shot for {_IDLE_S:.0f} s (waits for {capture.waits_for}), and nobody "
                        "can end it without a terminal; start it again to go on, with one (ssh -t) for Enter and q"
                    )
                terminal.draw(screen(capture, count=count, news=tuple(news)), f"waits for {capture.waits_for}")
        except HardwareError as error:
            return f"capture ended: {error}"
    return None


def _summary(capture: Capture, before: int, options: Namespace) -> list[str]:
    """Return what is there now, what is missing, and which commands come next."""
    folder = capture.folder.path
    lines = [f"{folder}: {capture.count} shots, {capture.count - before} of them new"]
    lines += [f"{name}: {guide.count} pictures with the board" for name, guide in capture.guides.items()]
    if not capture.count:
        seen = "; ".join(f"{name}: {now.why_not or 'the board'}" for name, now in capture.cameras.items())
        return [*lines, f"no shot was taken ({seen})"]
    lines += missing_lines(capture.missing())
    name = next((name for name, guide in capture.guides.items() if guide.count), "CAMERA")
    lines.append(f"next: calibrate_rig.py intrinsics {folder / name} --board {options.board} --out {name}.json")
    if len(capture.folder.poses):
        lines.append(
            f"then: calibrate_rig.py hand-eye --robot-poses {folder / ARM} --pictures {folder / name} --board "
            f"{options.board} --intrinsics {name}.json --out {name}_hand_eye.json, or extrinsics for several cameras"
        )
    return lines


def _document(capture: Capture) -> Mapping[str, Any]:
    return {
        "folder": capture.folder.path,
        "shots": capture.count,
        "poses": len(capture.folder.poses),
        "cameras": {name: guide.count for name, guide in capture.guides.items()},
        "missing": capture.missing(),
    }


def _check_room(folder: Path, sizes: Mapping[str, tuple[int, int]], count: int) -> None:
    """Raise BadInputError where the disk has no room for the shots; a PNG is smaller than its pixels."""
    needed_mb = max(0, count) * sum(3 * height * width for height, width in sizes.values()) / 1e6
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < needed_mb:
        raise BadInputError(
            f"{folder}: {free_mb:.0f} MB free, {count} shots take up to {needed_mb:.0f} MB; make room, or give a "
            "smaller --count"
        )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise ArgumentTypeError(f"got {text!r} (allowed 1 to {_MOST}, a whole number)")
    return int(text)

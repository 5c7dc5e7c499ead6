"""`calibrate_rig.py pictures`: shots from logged episodes, in the layout that the later steps read."""

from __future__ import annotations

import math
import shutil
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from calibration.command import Outcome
from calibration.drive_shots import Drive, DriveShot, shots_at_rest, shots_in_motion, starts_s
from calibration.shots_folder import ARM, name_of, png, pose_file_text, written
from robot.errors import BadInputError

ROBOT = "robot.csv"
_LONGEST_S = 3600.0


class ReadDrives(Protocol):
    """Opens the drives of an episode or a run; raises BadInputError."""

    def __call__(self, path: Path, cameras: Sequence[str] = ()) -> Sequence[Drive]: ...  # noqa: D102


class PicturesCommand:
    """The subcommand, a `calibration.command.Command`.

    Args:
        read_drives: opens what is named on the command line.
    """

    SUMMARY = """Makes shots of logged episodes: of a drive that was recorded with full-size pictures.

Without --moving, there is a shot for each time that the hand rested for half a second, with one picture of each camera:
FOLDER/<camera>/<number>.png and FOLDER/arm.csv, as `capture` leaves them. With --moving, every picture is a shot, named
by the time at which it was taken; FOLDER/arm.csv has where the hand was then (between two ticks by cubic splines), and
FOLDER/robot.csv where it was at each tick, for a hand-eye calibration that also looks for the offset between camera and
arm. Pictures are on the disk only if the station says stream = "lossless" (or "jpeg") for the camera."""
    EXAMPLES = (
        "calibrate_rig.py pictures runs/drive --out shots --moving",
        "calibrate_rig.py pictures runs/drive/episodes/20261123T101530Z-drive-0000.h5 --out shots --camera wrist",
    )

    def __init__(self, read_drives: ReadDrives) -> None:
        self._read_drives = read_drives

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of pictures."""
        parser.add_argument("episodes", type=Path, nargs="+", metavar="EPISODE|RUN", help="recorded drives")
        parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made anew, whole or not at all")
        parser.add_argument(
            "--every",
            type=_seconds,
            metavar="S",
            help="in a long rest a shot so often (default: once); with --moving, pictures of a camera no closer than "
            "that (default: all)",
        )
        parser.add_argument("--moving", action="store_true", help="every picture, and the arm's way in robot.csv")
        parser.add_argument(
            "--camera", action="append", default=[], metavar="NAME", help="only this one; may be given several times"
        )

    def run(self, options: Namespace) -> Outcome:
        """Choose, write, say."""
        drives = [drive for path in options.episodes for drive in self._read_drives(path, options.camera)]
        _check(drives)
        out: Path = options.out
        with written(out):
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise BadInputError(f"--out {out}: is there already; name a new folder, or remove it")
            making = out.absolute().with_name(f".{out.absolute().name}.part")
            chosen = _shots(drives, options)
            if not any(chosen):
                raise BadInputError(
                    f"{drives[0].where}: the hand never rests for half a second in it; add --moving, or record again "
                    "and stop at each pose"
                )
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            try:
                count = _write(making, drives, chosen, options)
            except BaseException:
                shutil.rmtree(making, ignore_errors=True)
                raise
            if out.exists():
                out.rmdir()
            making.replace(out)
        shots = sum(map(len, chosen))
        print(f"{out}: {shots} shots; " + ", ".join(f"{name} {many} pictures" for name, many in count.items()))
        for camera in sorted({camera for drive in drives for camera in drive.lossy}):
            print(f"note: {camera} was recorded as JPEG, which blurs edges a little; stream = 'lossless' does not")
        poses = ROBOT if options.moving else ARM
        name = max(count, key=lambda camera: count[camera])
        print(
            f"next: calibrate_rig.py hand-eye --robot-poses {out / poses} --pictures {out / name} --board BOARD.json "
            f"--intrinsics {name}.json --out {name}_hand_eye.json"
        )
        return Outcome(passed=True, document={"folder": out, "shots": shots, "pictures": dict(count)})


def _check(drives: Sequence[Drive]) -> None:
    """Raise BadInputError where drives are not of one rig, or one has no way of the arm."""
    for drive in drives:
        if drive.station != drives[0].station:
            raise BadInputError(
                f"{drive.where}: is of station {drive.station!r}, {drives[0].where} of {drives[0].station!r}; a shot "
                "folder is of one rig, give those apart"
            )
        if len(drive.arm_s) < 2:
            raise BadInputError(f"{drive.where}: has {len(drive.arm_s)} states of the arm; leave it out")


def _shots(drives: Sequence[Drive], options: Namespace) -> list[list[DriveShot]]:
    if options.moving:
        starts = starts_s(drives)
        return [list(shots_in_motion(drive, s, options.every or 0.0)) for drive, s in zip(drives, starts, strict=True)]
    found: list[list[DriveShot]] = []
    for drive in drives:
        found.append(list(shots_at_rest(drive, 1 + sum(map(len, found)), options.every)))
    return found


def _write(
    folder: Path, drives: Sequence[Drive], chosen: Sequence[Sequence[DriveShot]], options: Namespace
) -> Counter[str]:
    """Write everything; return how many pictures there are of each camera."""
    count = Counter({camera: 0 for drive in drives for camera in drive.captured_s})
    with tqdm(total=sum(len(shot.pictures) for shots in chosen for shot in shots), unit="picture", disable=None) as bar:
        for drive, shots in zip(drives, chosen, strict=True):
            for shot in shots:
                for camera, index in shot.pictures.items():
                    place = folder / camera
                    place.mkdir(exist_ok=True)
                    (place / f"{name_of(shot.t_s)}.png").write_bytes(png(drive.picture(camera, index)))
                    count[camera] += 1
                    bar.update()
    rows = {shot.t_s: shot.T_base_hand for shots in chosen for shot in shots}
    (folder / ARM).write_bytes(pose_file_text(sorted(rows.items(), key=lambda row: row[0])))
    if options.moving:
        ways = zip(drives, starts_s(drives), strict=True)
        way = [(t - s, T) for drive, s in ways for t, T in zip(drive.arm_s.tolist(), drive.T_base_tcp, strict=True)]
        (folder / ROBOT).write_bytes(pose_file_text(way))
    return count


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value <= _LONGEST_S:
        raise ArgumentTypeError(f"got {text!r} (allowed above 0, up to {_LONGEST_S:g} s)")
    return value

"""A folder of shots as every step of a calibration reads it, written so that a crash leaves it whole.

FOLDER/<camera>/<shot>.png, lossless and of the camera's own size, and FOLDER/arm.csv with T_base_hand of each shot. A
shot is named by the `t` of its row.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.board import Board
from calibration.pose_file import COLUMNS, read_pose_file
from robot.errors import BadInputError
from robot.geometry import pose
from robot.whole_file import sync, write_whole

Array = NDArray[np.float64]
Image8 = NDArray[np.uint8]
ARM = "arm.csv"
_ABOUT = "capture.json"
_FAST = 1  # of 9: takes half of the time of the usual 3 and a fifth more room


class ShotsFolder:
    """Shots of one rig with one board, numbered from 1; what is there already counts.

    Args:
        path: the folder.
        station: name of the station.
        board: what is shown.
        sizes: (height, width) of each camera's pictures [px].

    Raises:
        BadInputError: the folder holds shots of another station, board or size, or cannot be written.
    """

    def __init__(self, path: Path, *, station: str, board: Board, sizes: Mapping[str, tuple[int, int]]) -> None:
        self.path = path
        with written(path):
            path.mkdir(parents=True, exist_ok=True)
            about = _about(path)
            self._check(about, station, board, sizes)
            known = {**about.get("cameras", {}), **{name: list(size) for name, size in sizes.items()}}
            for name in sizes:
                (path / name).mkdir(exist_ok=True)
            text = json.dumps({"station": station, "board": board.model_dump(), "cameras": known}, indent=1)
            write_whole(path / _ABOUT, text.encode() + b"\n")
            for part in path.glob("*/.*.png"):  # of a shot that a crash cut off
                part.unlink()
        self._cameras = tuple(known)
        self._poses: list[tuple[float, Array]] = []
        if (path / ARM).exists():
            file = read_pose_file(path / ARM)
            matrices = Rotation.from_quat(file.quat_xyzw).as_matrix()
            self._poses = [
                (t, pose(R, p)) for t, R, p in zip(file.t_s.tolist(), matrices, file.position_m, strict=True)
            ]
        self.next = 1 + max([0, *self.numbers(), *(int(t) for t, _ in self._poses)])

    def numbers(self) -> set[int]:
        """Return the numbers of the shots that have pictures."""
        return {int(path.stem) for name in self._cameras for path in self.pictures(name)}

    def pictures(self, camera: str) -> list[Path]:
        """Return the pictures of a camera, by number; those that a person put there are theirs and not counted."""
        return sorted(path for path in (self.path / camera).glob("*.png") if path.stem.isdecimal())

    @property
    def poses(self) -> Array:
        """T_base_hand of the shots that have one (n, 4, 4)."""
        return np.array([T for _, T in self._poses]).reshape(-1, 4, 4)

    def save(self, pictures: Mapping[str, Image8], T_base_hand: Array | None) -> list[Path]:
        """Keep one shot and return its files: pictures (H, W, 3) uint8, red first, by camera, and the hand's pose.

        The pose's row is on the disk before the first picture has its name: a picture without a pose of its own cannot
        come to be.

        Raises:
            BadInputError: it cannot be written; what was there before is whole.
        """
        number = self.next
        making: list[tuple[Path, Path]] = []
        with written(self.path):
            try:
                for name, rgb in pictures.items():
                    final = self.path / name / f"{number:03d}.png"
                    making.append((final.with_name(f".{final.name}"), final))
                    making[-1][0].write_bytes(png(rgb))
                    sync(making[-1][0])
                if T_base_hand is not None:
                    poses = [*self._poses, (float(number), T_base_hand)]
                    write_whole(self.path / ARM, pose_file_text(poses))
                    self._poses = poses
                for part, final in making:
                    part.replace(final)
            except OSError:
                for part, _ in making:
                    part.unlink(missing_ok=True)
                raise
        self.next = number + 1
        return [final for _, final in making]

    def _check(
        self, about: Mapping[str, Any], station: str, board: Board, sizes: Mapping[str, tuple[int, int]]
    ) -> None:
        if not about:
            return
        if about["station"] != station:
            raise BadInputError(
                f"{self.path}: its shots are of station {about['station']!r}, this is {station!r}; name another folder"
            )
        then = Board.model_validate(about["board"])
        if then != board:
            raise BadInputError(
                f"{self.path}: its shots show a board of {then.words}, --board is one of {board.words}; name another "
                "folder, or the board that was used"
            )
        for name, (height, width) in sizes.items():
            old = about["cameras"].get(name, [height, width])
            if old != [height, width]:
                raise BadInputError(
                    f"{self.path / name}: its pictures are {old[1]}x{old[0]}, camera {name!r} gives {width}x{height} "
                    "now; name another folder, or set its old size in the station"
                )


def png(rgb: Image8) -> bytes:
    """Return a picture (H, W, 3), red first, as a lossless PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, _FAST])
    assert done, "a picture of uint8 has a PNG"
    return data.tobytes()


def name_of(t_s: float) -> str:
    """Return a time as a shot is named by it and its row begins with it, to a microsecond."""
    return f"{t_s:.6f}".rstrip("0").rstrip(".")


def pose_file_text(poses: Sequence[tuple[float, Array]]) -> bytes:
    """Return a pose file of times [s] and T_base_hand (4, 4)."""
    lines = [",".join(COLUMNS)]
    for t_s, T in poses:
        values = (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat())
        lines.append(f"{name_of(t_s)}," + ",".join(f"{value:.9f}" for value in values))
    return "\n".join([*lines, ""]).encode()


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Say what kept a folder from being written. Raises BadInputError in place of OSError."""
    try:
        yield
    except OSError as error:
        cure = "check its rights, or name another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "make room and start again: it goes on after the last shot"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            cure = "name a folder"
        raise BadInputError(f"{path}: cannot be written ({error.strerror}); {cure}") from None


def _about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((path / _ABOUT).read_text())
        if not isinstance(about, dict) or not {"station", "board", "cameras"} <= about.keys():
            raise ValueError
        Board.model_validate(about["board"])
        if not isinstance(about["cameras"], dict):
            raise ValueError
    except FileNotFoundError:
        return {}
    except ValueError:
        raise BadInputError(f"{path / _ABOUT}: is not what a capture wrote; name another folder") from None
    return about

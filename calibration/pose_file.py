"""Poses over time as a person's CSV file holds them: `t,x,y,z,qx,qy,qz,qw` in seconds and metres."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot.errors import BadInputError

Array = NDArray[np.float64]
COLUMNS = ("t", "x", "y", "z", "qx", "qy", "qz", "qw")
_ALSO = {"time": "t", "t_s": "t", "time_s": "t", "timestamp": "t", "x_m": "x", "y_m": "y", "z_m": "z"}
_MOST_BYTES = 400_000_000
_FARTHEST_M = 30.0
_LATEST_S = 1e11  # seconds since 1970 are 2e9; milliseconds and nanoseconds are beyond


@dataclass(frozen=True, kw_only=True)
class PoseFile:
    """Poses in order of time, each time once.

    Attributes:
        path: where they come from.
        t_s: strictly increasing (n,) [s], of the clock of whoever wrote the file.
        position_m: (n, 3).
        quat_xyzw: (n, 4), unit length, of one sign along the way.
        sha256: of the file's bytes.
        notes: what had to be put right, for people.
    """

    path: Path
    t_s: Array
    position_m: Array
    quat_xyzw: Array
    sha256: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.t_s)


def read_pose_file(path: Path) -> PoseFile:
    """Read a pose file; a first line of names is optional and may put the columns in another order.

    Rows with a NaN are left out, rows out of order sorted, repeated times taken once, quaternions normalised; `notes`
    says how many.

    Raises:
        BadInputError: no such file, no pose file, a row that is short or no number, more rows without a pose than
            with one, or values that cannot be seconds and metres.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInputError(f"pose file {path}: {path.stat().st_size / 1e6:.0f} MB (allowed 400); thin it out")
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BadInputError(f"pose file {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInputError(f"pose file {path}: is no text; rows are {','.join(COLUMNS)}") from None
    table = _table(path, text)
    finite = np.isfinite(table).all(axis=1)
    notes = _left_out("rows without a pose (NaN) left out", int((~finite).sum()))
    if 2 * finite.sum() < len(table):
        raise BadInputError(f"pose file {path}: {int((~finite).sum())} of {len(table)} rows hold NaN or infinity")
    table = table[finite]
    _check_units(path, table)
    norm = np.linalg.norm(table[:, 4:], axis=1)
    if (norm < 1e-3).any():
        t = table[int(np.argmin(norm)), 0]
        raise BadInputError(f"pose file {path}: the quaternion at t = {t:.6f} is zero; a rotation has length 1")
    notes += _left_out("quaternions normalised", int((np.abs(norm - 1.0) > 1e-3).sum()))
    table[:, 4:] /= norm[:, None]
    if (np.diff(table[:, 0]) < 0.0).any():
        notes += ("rows sorted by time",)
    table = table[np.argsort(table[:, 0], kind="stable")]
    first = np.concatenate([[True], np.diff(table[:, 0]) > 0.0])
    notes += _left_out("rows of a repeated time left out", int((~first).sum()))
    table = table[first]
    return PoseFile(
        path=path,
        t_s=table[:, 0],
        position_m=table[:, 1:4],
        quat_xyzw=one_sign(table[:, 4:]),
        sha256=hashlib.sha256(data).hexdigest(),
        notes=notes,
    )


def _table(path: Path, text: str) -> Array:
    """Parse the text to (n, 8) in the order of `COLUMNS`."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise BadInputError(f"pose file {path}: is empty; rows are {','.join(COLUMNS)}")
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()[:1] not in ("", "#")]
    order, rows = list(range(8)), numbered
    head = [word.strip().lower() for word in next(csv.reader([numbered[0][1]]))]
    if not _is_number(head[0]):
        names = [_ALSO.get(word, word) for word in head]
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise BadInputError(f"pose file {path}: line 1 names no column '{missing[0]}'; columns {','.join(COLUMNS)}")
        order, rows = [names.index(name) for name in COLUMNS], numbered[1:]
    try:
        table = np.loadtxt(io.StringIO("\n".join(line for _, line in rows)), delimiter=",", ndmin=2, comments=None)
        if table.shape[1] != len(head) or (order == list(range(8)) and len(head) != 8):
            raise ValueError
    except ValueError:
        raise BadInputError(_bad_row(path, rows, len(head) if rows is not numbered else 8)) from None
    if not len(table):
        raise BadInputError(f"pose file {path}: has no rows; rows are {','.join(COLUMNS)}")
    return np.ascontiguousarray(table[:, order])


def _bad_row(path: Path, rows: Sequence[tuple[int, str]], width: int) -> str:
    for number, line in rows:
        words = [word.strip() for word in line.split(",")]
        if len(words) != width:
            return f"pose file {path}: line {number} has {len(words)} values (allowed {width}: {','.join(COLUMNS)})"
        wrong = next((word for word in words if not _is_number(word)), None)
        if wrong is not None:
            return f"pose file {path}: line {number}: {wrong!r} is no number; rows are {','.join(COLUMNS)}"
    return f"pose file {path}: has no rows; rows are {','.join(COLUMNS)}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_units(path: Path, table: Array) -> None:
    if np.abs(table[:, 0]).max() > _LATEST_S:
        raise BadInputError(f"pose file {path}: t = {table[0, 0]:g} is no time in seconds; divide it")
    farthest = float(np.median(np.abs(table[:, 1:4]).max(axis=1)))
    if farthest > _FARTHEST_M:
        raise BadInputError(f"pose file {path}: positions of {farthest:.0f} m (allowed {_FARTHEST_M:.0f}); give metres")


def _left_out(what: str, count: int) -> tuple[str, ...]:
    return (f"{count} {what}",) if count else ()


def one_sign(quat_xyzw: Array) -> Array:
    """Return quaternions (n, 4) with signs flipped so that neighbours lie on one side.

    q and -q are one rotation, but not to an interpolation.
    """
    flips = np.where((quat_xyzw[1:] * quat_xyzw[:-1]).sum(axis=1) < 0.0, -1.0, 1.0)
    signs = np.concatenate([[1.0], np.cumprod(flips)])
    same: Array = quat_xyzw * signs[:, None]
    return same

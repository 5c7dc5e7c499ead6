"""Signals from CSV files, as `calibrate_rig.py latency` takes them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.delay import Signal
from robot.errors import BadInputError

Array = NDArray[np.float64]
Table = Mapping[str, Array]


def read_table(path: Path) -> Table:
    """Return the columns of a CSV file by name, `t` among them.

    Raises:
        BadInputError: it cannot be read, names no `t` and further columns, or holds what is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path}: cannot be read as CSV ({error}); give a file with a line of names") from None
    names = [name.strip() for name in rows[0]] if rows else []
    if "t" not in names or len(names) < 2 or len(set(names)) != len(names):
        raise BadInputError(
            f"{path}: its first line must name `t` and further columns, each once; got {','.join(names)!r}"
        )
    values: list[list[float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            numbers = [float(word) for word in row]
        except ValueError:
            numbers = []
        if len(numbers) != len(names) or not all(map(math.isfinite, numbers)):
            raise BadInputError(f"{path}: line {number} is not {len(names)} finite numbers; correct or remove it")
        values.append(numbers)
    table = np.array(values, dtype=np.float64).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def read_pair(
    commanded: Path, observed: Path, columns: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[Signal, Signal]]:
    """Return the columns that are compared, those that both files have or `columns`, and both signals.

    Raises:
        BadInputError: a file cannot be read, or they have no column or not these in common.
    """
    tables = read_table(commanded), read_table(observed)
    both = [name for name in tables[0] if name in tables[1] and name != "t"]
    if columns is None and not both:
        raise BadInputError(f"{commanded} and {observed} share no column besides t; give columns the same name")
    missing = next((name for name in columns or () if name not in both), None)
    if missing is not None:
        raise BadInputError(f"--columns: {missing!r} is not in both files; allowed {', '.join(both) or 'none'}")
    names = tuple(columns or both)
    first, second = (
        Signal(t_s=table["t"], values=np.stack([table[name] for name in names], axis=1)) for table in tables
    )
    return names, (first, second)

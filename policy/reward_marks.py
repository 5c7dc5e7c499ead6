"""What a person said of single ticks: a CSV file of episode, first tick, last tick and what they show."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from robot.errors import BadInputError

COLUMNS = ("episode", "first", "last", "label")
WORDS = {"success": 1, "none": 0, "unused": -1}


class Mark(NamedTuple):
    """Ticks `first` to `last`, both included, show `label`."""

    first: int
    last: int
    label: int


def read_marks(path: Path) -> dict[str, list[Mark]]:
    """Return the marks of a CSV file by the episode's file name.

    Its first line is `episode,first,last,label`; an episode is named by its file, ticks by `tick/index`, and a label is
    success, none or unused.

    Raises:
        BadInputError: the file cannot be read, or a line is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise BadInputError(f"{path}: its first line must be {','.join(COLUMNS)}")
            marks: dict[str, list[Mark]] = {}
            for line in reader:
                marks.setdefault(Path(line["episode"] or "").name, []).append(_mark(line, f"{path}:{reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path}: cannot be read ({error}); name a CSV file") from None
    return marks


def _mark(line: dict[str, str | None], where: str) -> Mark:
    try:
        first, last = int(line["first"] or ""), int(line["last"] or "")
    except ValueError:
        raise BadInputError(
            f"{where}: first and last must be ticks, got {line['first']!r} and {line['last']!r}"
        ) from None
    if not 0 <= first <= last:
        raise BadInputError(f"{where}: ticks {first} to {last}; first must be 0 or more and not after last")
    label = WORDS.get(line["label"] or "")
    if label is None or None in line:
        raise BadInputError(f"{where}: label is {line['label']!r} (allowed {', '.join(WORDS)})")
    return Mark(first, last, label)

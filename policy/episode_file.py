"""The parts of an episode file that its writer, commit, labels and reader share."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import SCHEMA_VERSION, EpisodeSpec
from robot.errors import BadInputError, HandrailError

FORMAT = "handrail-episode"
DEMO = "data/demo_0"
PENDING_OUTCOME = "pending_outcome"
PARTIAL, CREATING, COMMITTING = ".partial", ".creating", ".committing"

Attribute = str | int | bool

_SPARE_BYTES = 16_000_000

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class NoSpaceError(HandrailError):
    """The disk has no room; found out before HDF5 is asked to write."""


def free_bytes(folder: Path) -> int:
    """Return what a user may still write on the folder's disk [bytes]."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def check_space(folder: Path, needed_bytes: int, free: Callable[[Path], int] = free_bytes) -> None:
    """Refuse a write that might fill the disk.

    After one failed write HDF5 (2.0) cannot close its file, fails for other files as well and ends the process
    with a segmentation fault (measured), so no write may be the first to find the disk full.

    Raises:
        NoSpaceError: less than `needed_bytes` and a margin is free.
    """
    left = free(folder)
    if left < needed_bytes + _SPARE_BYTES:
        raise NoSpaceError(
            f"{folder}: {left // 1_000_000} MB free on its disk, recording needs "
            f"{(needed_bytes + _SPARE_BYTES) // 1_000_000} MB; make room"
        )


@contextmanager
def open_episode(path: Path, *, partial: bool = False) -> Iterator[h5py.File]:
    """Open an episode file for reading and check what it is.

    Raises:
        BadInputError: missing, empty, truncated, not HDF5, not an episode, or of another schema version.
    """
    _check_signature(path)
    try:
        file = h5py.File(path, "r", libver="latest", swmr=partial)
    except PermissionError:
        raise BadInputError(f"{path}: no right to read it; check its owner and mode") from None
    except OSError as error:
        if "truncated" in str(error):
            raise BadInputError(f"{path}: the file is truncated; copy it again from where it was recorded") from None
        cause = str(error).partition("(")[2].rstrip(")") or str(error)
        raise BadInputError(f"{path}: HDF5 cannot open it ({cause}); copy it again or restore it") from None
    with file:
        found = file.attrs.get("format")
        if (found.decode() if isinstance(found, bytes) else found) != FORMAT:
            raise BadInputError(
                f"{path}: HDF5, but no Handrail episode (format {found!r}, not {FORMAT!r}); check the path"
            )
        version = file.attrs.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BadInputError(
                f"{path}: schema version {version}, this Handrail reads {SCHEMA_VERSION}; "
                "use the release that recorded it"
            )
        if DEMO not in file:
            raise BadInputError(f"{path}: has no group {DEMO}; the file is damaged, restore it")
        yield file


def _check_signature(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_SIGNATURE))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise BadInputError(f"{path}: a folder, not an episode file (*.h5); name a file in it") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); check its owner and mode") from None
    if not head:
        raise BadInputError(f"{path}: the file is empty; copy it again from where it was recorded")
    if head != _SIGNATURE[: len(head)]:
        raise BadInputError(f"{path}: not an HDF5 file (it begins with {head!r}); episodes are named *.h5")


def read_rows(demo: h5py.Group, spec: EpisodeSpec, start: int, stop: int) -> NDArray[np.void]:
    """Return rows [start, stop) as they were recorded, shape (stop - start,)."""
    rows = np.empty(max(0, stop - start), spec.row_dtype())
    for name in rows.dtype.names or ():
        if rows.dtype[name].itemsize:
            rows[name] = demo[name][start:stop]
    return rows


def text_sha256(text: str | bytes) -> str:
    """Return the SHA-256 of an attribute's text in UTF-8 [hex]; it stands beside the texts that nothing else checks."""
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()


def header_attributes(header: EpisodeHeader) -> dict[str, Attribute]:
    """Return what a reader finds of the header without reading its JSON, by attribute of /data/demo_0."""
    attributes: dict[str, Attribute] = {
        "run_id": header.run_id,
        "episode": header.episode,
        "station_sha256": header.station_sha256,
        "open_loop": header.open_loop,
    }
    if header.bundle_sha256 is not None:
        attributes["bundle_sha256"] = header.bundle_sha256
    return attributes


def label_attributes(labels: Sequence[EpisodeOutcome]) -> dict[str, Attribute]:
    """Return the same of the labels; they are all so far, the one in force last."""
    outcome = labels[-1]
    return {
        "revision": len(labels) - 1,
        "outcome": outcome.outcome.value,
        "label_source": outcome.label_source.value,
        "success": outcome.success,
        "complete": outcome.complete,
        "dropped_ticks": outcome.dropped_ticks,
        "skipped_ticks": outcome.skipped_ticks,
    }


def write_label(file: h5py.File, labels: list[EpisodeOutcome]) -> None:
    """Write the attributes that a label changes; `labels` are all so far, the one in force last."""
    text = json.dumps([label.to_json() for label in labels])
    file[DEMO].attrs.update({"labels": text, "labels_sha256": text_sha256(text), **label_attributes(labels)})


def read_labels(path: Path, file: h5py.File) -> list[EpisodeOutcome]:
    """Return all labels of a final file, the one in force last. Raises BadInputError when there is none."""
    try:
        texts = json.loads(file[DEMO].attrs["labels"])
        labels = [EpisodeOutcome.from_json(text, where=str(path)) for text in texts]
        if not labels:
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise BadInputError(f"{path}: has no readable label (attribute 'labels'); restore the file") from None
    return labels


def read_header(path: Path, holder: h5py.Group) -> EpisodeHeader:
    """Return the header kept in `holder`'s attributes. Raises BadInputError."""
    if "header" not in holder.attrs:
        raise BadInputError(f"{path}: has no header (attribute 'header'); the file is damaged, restore it")
    return EpisodeHeader.from_json(holder.attrs["header"], where=str(path))

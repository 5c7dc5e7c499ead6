"""Files that are there whole or not at all, however a process ends."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` at once: a crash at any moment leaves the old content or the new.

    Unless `durable`, a power cut may undo it. One process at a time writes a path.

    Raises:
        OSError: the disk is full or failing; the old content is there, or the new.
    """
    making = path.with_name(f".{path.name}.writing")
    try:
        making.write_bytes(data)
        if durable:
            sync(making)
        making.replace(path)
    except OSError:
        making.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

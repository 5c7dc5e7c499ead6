"""Finishes what a killed recorder left in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policy.episode_commit import Committed, commit_episode
from policy.episode_file import COMMITTING, CREATING, PARTIAL, NoSpaceError
from policy.run_folder import remove_half_made
from robot.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What `recover_folder` did.

    Attributes:
        episodes: committed from what was left, marked incomplete where the episode had no end.
        problems: one line for each recording that could not be finished; those files are untouched.
    """

    episodes: tuple[Committed, ...]
    problems: tuple[str, ...]


@contextmanager
def recording_lock(folder: Path) -> Iterator[None]:
    """Own the recordings of an episodes folder; the kernel lets go when the process ends, however it ends.

    Raises:
        BadInputError: the folder is missing or another process records into it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be opened ({error.strerror}); name an episodes folder") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(f"{folder}: a run is still recording here; end it first") from None
        yield
    finally:
        os.close(descriptor)


def recover_folder(path: Path) -> Recovery:
    """Finish all recordings in a run folder or an episodes folder, or the one named by its `.partial`.

    Doing it again does no harm. Raises BadInputError when there is no such path or a run still records there.
    """
    if not path.exists():
        raise BadInputError(f"{path}: no such file or folder; name a run, its episodes folder or a *.h5{PARTIAL}")
    if path.is_file() and not path.name.endswith(f".h5{PARTIAL}"):
        raise BadInputError(f"{path}: is nothing that a crash left; name a run, its episodes folder or a *.h5{PARTIAL}")
    folder = path if path.is_dir() else path.parent
    if (folder / "episodes").is_dir():
        folder = folder / "episodes"
    with recording_lock(folder):
        if folder != path and path.is_dir():
            remove_half_made(path)
        return finish_left(folder, only=None if path.is_dir() else path)


def finish_left(folder: Path, *, only: Path | None = None) -> Recovery:
    """Do the work of `recover_folder`, for a caller that holds the folder's `recording_lock`."""
    episodes, problems = [], []
    for partial in [only] if only else sorted(folder.glob(f"*.h5{PARTIAL}")):
        try:
            episodes.append(commit_episode(partial))
        except (BadInputError, NoSpaceError) as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{partial}: could not be finished ({error}); check the disk and recover again")
    if only is None:
        # half-made files: of recordings that had no row yet, and of commits that were done again above
        for suffix in (CREATING, COMMITTING):
            for leftover in folder.glob(f"*.h5{suffix}"):
                leftover.unlink()
    return Recovery(episodes=tuple(episodes), problems=tuple(problems))

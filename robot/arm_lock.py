"""One owner process per arm."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from robot.errors import BadInputError


class ArmLock:
    """Holds an arm for this process from entering to leaving; may be entered again after that.

    An flock: the kernel lets go of it however the process ends, `kill -9` included, so there is no stale lock to
    clear. The file itself stays, for removing it would let two processes lock two files of one name. A child made by
    fork shares the lock until it ends; start children by spawn.

    Args:
        arm: name of the arm in the station.
        folder: where the lock file goes; the user's runtime folder, or the temporary one, when left out.
    """

    def __init__(self, arm: str, folder: Path | None = None) -> None:
        place = folder or Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        self._arm = arm
        self._path = place / f"handrail-arm-{re.sub(r'[^A-Za-z0-9_.-]', '_', arm)}.lock"
        self._file: int | None = None

    def __enter__(self) -> Self:
        """Take the arm. Raises BadInputError when another owner has it or the lock file cannot be opened."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise BadInputError(
                f"arm '{self._arm}': lock file {self._path} cannot be opened ({error.strerror}); "
                "set XDG_RUNTIME_DIR to a folder that you may write to"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise BadInputError(
                f"arm '{self._arm}': held by process {owner} ({self._path}), one owner allowed; "
                f"end that run first (kill {owner})"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the arm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

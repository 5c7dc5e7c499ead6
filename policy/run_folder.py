"""The folder of one run: its episodes and, by SHA-256, everything that a replay of them needs."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from policy.episode_header import Record, RunId
from policy.manifest_file import read_manifest
from policy.provenance import Provenance
from policy.reward_manifest import read_reward_manifest
from robot.errors import BadInputError
from robot.whole_file import sync, write_whole

_KINDS = ("episodes", "bundles", "weights", "stations")
_REWARDS = "rewards"  # there only in a run with a reward model
_IN_FORCE = "in_force"  # in weights/: SHA-256 of what drove last; there only in a run that learned
_EPISODE = re.compile(r"-(\d{6,})\.h5(\.\w+)?$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class RunInfo(Record):
    """run.json."""

    schema_version: Literal[1] = 1
    run_id: RunId
    provenance: Provenance


# .<name>.<process id>, as `_write` and `store_bundle` name what they make
_HALF_MADE = re.compile(r"\.(run\.json|in_force|([0-9]+-)?[0-9a-f]{64})\.[0-9]+")


class RunFolder:
    """One run on disk: `run.json`, `episodes/`, `bundles/`, `weights/` and `stations/` (calibrations included).

    What is stored is named by its SHA-256, written once, and checked each time it is read.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, provenance: Provenance, *, resume: bool = False, min_free_mb: int = 256) -> RunFolder:
        """Make the folder, or go on with the run in it.

        Args:
            path: the folder; its name becomes part of the run's id.
            provenance: of a new run; a resumed one keeps its own, episodes carry theirs.
            resume: True to go on where a run exists; its episode index continues.
            min_free_mb: space that must be free on the disk [MB].

        Raises:
            BadInputError: it exists and `resume` is False, is something else, or has no rights or space.
        """
        cls.prepare(path, resume=resume, min_free_mb=min_free_mb)
        try:
            if (path / "run.json").exists():
                run = cls.open(path)
            else:
                run = cls(path, RunInfo(run_id=f"{path.name}-{uuid.uuid4().hex[:8]}", provenance=provenance))
            for kind in _KINDS:
                (path / kind).mkdir(exist_ok=True)
            if not os.access(path / "episodes", os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if not (path / "run.json").exists():
                write_whole(path / "run.json", run.info.to_json().encode())
        except OSError as error:
            raise _no_room(path, error) from None
        return run

    @staticmethod
    def prepare(path: Path, *, resume: bool = False, min_free_mb: int = 256) -> None:
        """Make the folder, without a run in it yet, and check that one could begin or go on there.

        Raises:
            BadInputError: as of `create`.
        """
        if not _NAME.fullmatch(path.name):
            raise BadInputError(f"{path}: {path.name!r} is no name for a run; use letters, digits, '_', '-' and '.'")
        try:
            if (path / "run.json").exists():
                if not resume:
                    raise BadInputError(f"{path}: holds a run already; name a new folder or resume that one")
            elif path.exists() and any(path.iterdir()):
                raise BadInputError(f"{path}: holds other files and no run; name a new or empty folder")
            made = [folder for folder in (path, *path.absolute().parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            free_mb = shutil.disk_usage(path).free // 1_000_000
            if free_mb < min_free_mb:
                for folder in made:  # none is left behind
                    folder.rmdir()
                raise BadInputError(f"{path}: {free_mb} MB free on its disk, a run needs {min_free_mb} MB; make room")
        except OSError as error:
            raise _no_room(path, error) from None

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run. Raises BadInputError when there is none."""
        try:
            text = (path / "run.json").read_bytes()
        except OSError as error:
            raise BadInputError(f"{path}: no run here (run.json: {error.strerror}); name a run's folder") from None
        return cls(path, RunInfo.from_json(text, where=str(path / "run.json")))

    @property
    def run_id(self) -> str:
        """Unique name of the run."""
        return self.info.run_id

    @property
    def episodes(self) -> Path:
        """Folder of the episode files."""
        return self.path / "episodes"

    def next_episode(self) -> int:
        """Index after the highest in the folder, unfinished recordings included."""
        found = (_EPISODE.search(path.name) for path in self.episodes.iterdir())
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def store_station(self, data: bytes) -> str:
        """Keep a station file or a calibration file; return its SHA-256."""
        return self._store("stations", "", data)

    def station(self, sha256: str) -> bytes:
        """Return a station or calibration file. Raises BadInputError when missing or changed."""
        return self._load("stations", sha256)

    def store_weights(self, version: int, data: bytes) -> str:
        """Keep a weights message under its version; return its SHA-256."""
        return self._store("weights", f"{version:08d}-", data)

    def weights(self, sha256: str) -> bytes:
        """Return a weights message. Raises BadInputError when missing or changed."""
        return self._load("weights", sha256)

    def weights_sha256(self, version: int) -> str:
        """Return the SHA-256 of the weights of `version`. Raises BadInputError unless there is exactly one."""
        found = sorted((self.path / "weights").glob(f"{version:08d}-*"))
        if len(found) != 1:
            raise BadInputError(f"{self.path / 'weights'}: {len(found)} files of version {version}, must be one")
        return found[0].name.partition("-")[2]

    def weights_versions(self) -> list[int]:
        """Return the versions of the weights that the run had in force, ascending."""
        return sorted({int(path.name.partition("-")[0]) for path in (self.path / "weights").glob("[0-9]*-*")})

    def newest_weights(self) -> bytes | None:
        """Return the message of the highest version, None when there is none. Raises BadInputError when changed."""
        found = sorted((self.path / "weights").glob("[0-9]*-*"))
        return self.weights(found[-1].name.partition("-")[2]) if found else None

    def note_in_force(self, sha256: str) -> None:
        """Keep which of the stored weights drive, for when the run goes on. Raises BadInputError."""
        path = self.path / "weights" / _IN_FORCE
        try:
            # no sync, since a tick waits for this: a power cut may leave the weights before, or an empty file
            write_whole(path, sha256.encode(), durable=False)
        except OSError as error:
            raise _cannot_store(path, error) from None

    def weights_in_force(self) -> bytes | None:
        """Return the message that drove last, None where nobody noted it.

        It is not that of the highest version after those failed at work, or after a person went back.

        Raises:
            BadInputError: missing or changed.
        """
        path = self.path / "weights" / _IN_FORCE
        try:
            sha256 = path.read_text("ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{path}: cannot be read ({error}); remove it to start from the newest") from None
        if sha256 and not _SHA256.fullmatch(sha256):
            raise BadInputError(f"{path}: got {sha256[:80]!r} (allowed a SHA-256); remove it to start from the newest")
        return self.weights(sha256) if sha256 else None

    def store_bundle(self, sha256: str, files: Mapping[str, bytes]) -> None:
        """Keep a bundle's `files` (`Bundle.files`) under its content hash. Raises BadInputError."""
        self._store_files(self.path / "bundles" / sha256, files)

    def store_reward(self, sha256: str, files: Mapping[str, bytes]) -> None:
        """Keep a reward model's `files` (`RewardModel.files`) under its content hash. Raises BadInputError."""
        self._store_files(self.path / _REWARDS / sha256, files)

    def reward(self, sha256: str) -> Path:
        """Return the folder of a reward model, for `load_reward_model`, which checks its graph too.

        Raises:
            BadInputError: missing or changed.
        """
        path = self.path / _REWARDS / sha256
        manifest, _ = read_reward_manifest(path)
        if manifest.content_sha256 != sha256:
            raise BadInputError(
                f"{path}: holds reward model {manifest.content_sha256}; the files were changed, restore them"
            )
        return path

    @staticmethod
    def _store_files(target: Path, files: Mapping[str, bytes]) -> None:
        if not target.exists():
            making = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                target.parent.mkdir(exist_ok=True)
                making.mkdir()
                for name, data in files.items():
                    write_whole(making / name, data)
                making.rename(target)
                sync(target.parent)
            except OSError as error:
                raise _cannot_store(target, error) from None
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def bundle(self, sha256: str) -> Path:
        """Return the folder of a bundle, for `load_bundle`, which checks the graphs too.

        Raises:
            BadInputError: missing or changed.
        """
        path = self.path / "bundles" / sha256
        manifest, _ = read_manifest(path)
        if manifest.content_sha256 != sha256:
            raise BadInputError(f"{path}: holds bundle {manifest.content_sha256}; the files were changed, restore them")
        return path

    def _store(self, kind: str, prefix: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path / kind / f"{prefix}{sha256}"
        if not path.exists():
            try:
                write_whole(path, data)
            except OSError as error:
                raise _cannot_store(path, error) from None
        return sha256

    def _load(self, kind: str, sha256: str) -> bytes:
        folder = self.path / kind
        found = next((path for path in folder.glob(f"*{sha256}") if not path.name.startswith(".")), None)
        if found is None:
            raise BadInputError(f"{folder}: has no file {sha256}; copy the whole run folder")
        data = found.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadInputError(f"{found}: its bytes do not match its name; the file was changed, restore it")
        return data


def remove_half_made(path: Path) -> None:
    """Remove what a killed run did not finish storing in its folder; for a caller that holds its `recording_lock`."""
    for folder in (path, *(path / kind for kind in (*_KINDS, _REWARDS))):
        for left in folder.iterdir() if folder.is_dir() else ():
            if not _HALF_MADE.fullmatch(left.name):
                continue  # a person's own
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()


def _cannot_store(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"{path}: cannot be stored ({error.strerror or error}); check the disk's rights and space")


def _no_room(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"{path}: cannot hold a run ({error.strerror or error}); name a folder with rights and space")

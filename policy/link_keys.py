"""Files of CURVE keys: one folder for the learner, one for each robot, each to be copied whole to its machine.

    KEYS/learner/key.json              the learner's own pair
    KEYS/learner/robots/NAME.json      public key of each robot that may connect
    KEYS/NAME/key.json                 a robot's own pair and the learner's public key

Adding and revoking a robot changes `robots/` alone, which a running learner reads again by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import zmq
from pydantic import Field, ValidationError
from zmq.utils import z85

from policy.link_security import LearnerKeys, RobotKeys
from robot.errors import BadInputError
from robot.strict import Strict

LEARNER, ROBOTS, KEY = "learner", "robots", "key.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
Z85Key = Annotated[str, Field(min_length=40, max_length=40)]


class LearnerKeyFile(Strict):
    """learner/key.json."""

    role: Literal["learner"] = "learner"
    public: Z85Key
    secret: Z85Key


class RobotKeyFile(Strict):
    """NAME/key.json; `learner` is the learner's public key."""

    role: Literal["robot"] = "robot"
    name: str
    public: Z85Key
    secret: Z85Key
    learner: Z85Key


class AllowedRobot(Strict):
    """learner/robots/NAME.json."""

    public: Z85Key


K = TypeVar("K", LearnerKeyFile, RobotKeyFile, AllowedRobot)


class RobotFolder:
    """The robots that may connect, as the files in a folder say now: read again whenever they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._names: dict[bytes, str] = {}

    def name(self, public: bytes) -> str | None:
        """As `policy.link_security.Robots.name`; a folder or a file that cannot be read lets nobody in."""
        return self.names().get(public)

    def names(self) -> dict[bytes, str]:
        """Return public key -> name of all."""
        try:
            files = sorted(self._folder.glob("*.json"))
            seen = [(path.name, status.st_ino, status.st_mtime_ns) for path in files for status in [path.stat()]]
        except OSError:
            self._seen, self._names = None, {}
            return self._names
        if seen != self._seen:
            names = {}
            for path in files:
                try:
                    names[_read(path, AllowedRobot).public.encode()] = path.stem
                except BadInputError:
                    continue
            self._seen, self._names = seen, names  # a thread that asks meanwhile gets the old ones
        return self._names


def make_keys(folder: Path, names: list[str]) -> list[Path]:
    """Make keys for robots, and for the learner unless it has some, and return the folders that were made.

    Raises:
        BadInputError: a name cannot be used or has keys already, or the folder holds something else.
    """
    _refuse_bad_names(names)
    made: list[Path] = []
    try:
        if folder.exists() and not (folder / LEARNER / KEY).exists() and any(folder.iterdir()):
            raise BadInputError(f"{folder}: holds other files and no keys; name a new folder")
        for name in names:
            for path in (folder / name, _allowed(folder, name)):
                if path.exists():
                    raise BadInputError(f"{path}: robot {name!r} has keys already; revoke it first or use another name")
        _make_folder(folder)
        if not (folder / LEARNER / KEY).exists():
            public, secret = _pair()
            _make_folder(folder / LEARNER)
            _make_folder(folder / LEARNER / ROBOTS)
            _write(folder / LEARNER / KEY, LearnerKeyFile(public=public, secret=secret))
            made.append(folder / LEARNER)
        learner = _read(folder / LEARNER / KEY, LearnerKeyFile)
        for name in names:
            public, secret = _pair()
            _make_folder(folder / name)
            _write(folder / name / KEY, RobotKeyFile(name=name, public=public, secret=secret, learner=learner.public))
            _write(_allowed(folder, name), AllowedRobot(public=public))
            made.append(folder / name)
    except OSError as error:
        raise BadInputError(f"{error.filename or folder}: cannot be made ({error.strerror}); choose another") from None
    return made


def revoke(folder: Path, names: list[str]) -> list[Path]:
    """Let robots connect no more, and return the files and folders that went: what the learner knows, and their keys.

    Raises:
        BadInputError: one of them has no keys here, and then none is revoked; or keys cannot be removed, and then that
            robot and those after it are to be revoked again.
    """
    _refuse_bad_names(names)
    known = robots_in(folder)
    for name in names:
        # only one of the two is there after a crash between them
        if not (_allowed(folder, name).exists() or _of_keys(folder / name)):
            there = ", ".join(sorted(known)) or "none"
            raise BadInputError(f"{folder}: robot {name!r} has no keys here (there are: {there}); check the name")
    gone = []
    for place, name in enumerate(names):
        try:
            if _allowed(folder, name).exists():
                _allowed(folder, name).unlink(missing_ok=True)
                gone.append(_allowed(folder, name))
            if _of_keys(folder / name):
                shutil.rmtree(folder / name)
                gone.append(folder / name)
        except OSError as error:
            raise BadInputError(
                f"{folder}: keys of robot {name!r} cannot be removed ({error.strerror}); mend that and revoke "
                f"{' '.join(names[place:])} again"
            ) from None
    return gone


def robots_in(folder: Path) -> dict[str, bytes]:
    """Return name -> public key of the robots that may connect. Raises BadInputError where there is no learner."""
    _read(folder / LEARNER / KEY, LearnerKeyFile)
    return {name: public for public, name in RobotFolder(folder / LEARNER / ROBOTS).names().items()}


def learner_keys(folder: Path) -> LearnerKeys:
    """Read a learner's keys, from its own folder or the one above.

    Raises:
        BadInputError: they are missing, damaged, another's, or open to other users of this machine.
    """
    folder = folder / LEARNER if (folder / LEARNER / KEY).exists() else folder
    found = _read(folder / KEY, LearnerKeyFile, secret=True)
    _check_pair(folder / KEY, found.public, found.secret)
    if not (folder / ROBOTS).is_dir():
        raise BadInputError(f"{folder / ROBOTS}: no such folder; copy the learner's keys whole")
    return LearnerKeys(public=found.public.encode(), secret=found.secret.encode(), robots=RobotFolder(folder / ROBOTS))


def robot_keys(folder: Path) -> RobotKeys:
    """Read a robot's keys from its folder. Raises BadInputError as `learner_keys`."""
    if (folder / LEARNER / KEY).exists():
        raise BadInputError(
            f"{folder}: holds the keys of all; name the robot's own folder in it "
            f"({', '.join(sorted(robots_in(folder))) or 'none made yet'})"
        )
    found = _read(folder / KEY, RobotKeyFile, secret=True)
    _check_pair(folder / KEY, found.public, found.secret)
    return RobotKeys(public=found.public.encode(), secret=found.secret.encode(), learner=found.learner.encode())


def is_robot(folder: Path) -> bool:
    """Whether a folder holds a robot's keys and no learner's."""
    return (folder / KEY).exists() and not (folder / ROBOTS).is_dir() and not (folder / LEARNER).is_dir()


def _refuse_bad_names(names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or name in (LEARNER, ROBOTS):
            raise BadInputError(
                f"robot name {name!r}: use small letters, digits, '_' and '-', and neither 'learner' nor 'robots'"
            )
    if len(set(names)) != len(names):
        raise BadInputError(f"robot names {', '.join(names)}: one is there twice; name each once")


def _of_keys(folder: Path) -> bool:
    """Tell whether `folder` is a robot's, whole or half made, and not another that a person put there."""
    if not folder.is_dir():
        return False
    return (folder / KEY).exists() or all(path.name.startswith(f".{KEY}.") for path in folder.iterdir())


def _allowed(folder: Path, name: str) -> Path:
    return folder / LEARNER / ROBOTS / f"{name}.json"


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)


def _write(path: Path, content: Strict) -> None:
    """Write a new file that only its owner may read; it is never there with less than all of its content."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content.model_dump_json(indent=2) + "\n")
        stream.flush()
        os.fsync(descriptor)
    try:
        os.link(making, path)  # unlike a rename, it refuses to replace
    finally:
        making.unlink()


def _read(path: Path, kind: type[K], *, secret: bool = False) -> K:
    try:
        if secret and (mode := path.stat().st_mode & 0o777) & 0o077:
            raise BadInputError(f"{path}: mode {mode:04o} lets others read the key (allowed 0600); chmod 600 {path}")
        found = kind.model_validate_json(path.read_bytes())
        for name in ("public", "secret", "learner"):
            if hasattr(found, name):
                z85.decode(getattr(found, name))
    except OSError as error:
        raise BadInputError(
            f"{path}: no keys ({error.strerror}); make them with launch/make_keys.py and name their folder"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise BadInputError(f"{path}: no keys of a {_ROLES[kind]} (at {where}: {first['msg']}); name others") from None
    except (KeyError, ValueError, struct.error):  # the last one where the text stands for too large a number
        raise BadInputError(f"{path}: a key in it is no Z85 text; copy the file again or make new keys") from None
    return found


_ROLES = {LearnerKeyFile: "learner", RobotKeyFile: "robot", AllowedRobot: "robot that may connect"}


def _check_pair(path: Path, public: str, secret: str) -> None:
    if zmq.curve_public(secret.encode()) != public.encode():
        raise BadInputError(f"{path}: public and secret key are no pair; copy the file again or make new keys")

"""The learner's own copy of every episode it took, in the order in which they came.

An episode is acknowledged only when it lies here. The files hold the very messages that were checked on arrival,
and the order is part of the learner's state: fed again in this order, the replay buffer comes out the same.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from policy.learner_episode import EpisodeArrays, EpisodeKey
from policy.learner_messages import (
    EpisodeMessage,
    MalformedMessageError,
    episode_arrays,
    episode_message,
    pack,
    unpack_robot,
)
from robot.errors import BadInputError
from robot.whole_file import write_whole

_NAME = re.compile(r"(\d{8})-(.+)-(\d{6,})-r(\d+)\.msgpack")


def sound_message(episode: EpisodeArrays) -> bytes:
    """Return the message of `episode`, as `EpisodeStore.load` can read it back.

    Raises:
        MalformedMessageError: it breaks a bound of the wire, or has no ticks.
    """
    try:
        payload = pack(episode_message(episode))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise MalformedMessageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    message = unpack_robot(payload)
    assert isinstance(message, EpisodeMessage), "it was made as one"
    episode_arrays(message)
    return payload


class EpisodeStore:
    """Episodes on disk, numbered from 0 as they came; revisions of one episode are kept all."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`, made when missing.

        Raises:
            BadInputError: the folder cannot be made, or numbers are missing in it.
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
        self._paths: list[Path] = []
        self._keys: list[EpisodeKey] = []
        self._first: list[bool] = []
        self._revisions: dict[tuple[str, int], int] = {}
        for path in sorted(folder.glob("*.msgpack")):
            match = _NAME.fullmatch(path.name)
            if match is None or int(match[1]) != len(self._paths):
                raise BadInputError(f"{path}: expected stored episode {len(self._paths)}; restore what was removed")
            self._note(path, EpisodeKey(match[2], int(match[3]), int(match[4])))

    def __len__(self) -> int:
        return len(self._paths)

    def knows(self, key: EpisodeKey) -> bool:
        """Tell whether this revision of the episode, or a newer one, is here."""
        return self.newest_revision(key.run_id, key.episode) >= key.revision

    def newest_revision(self, run_id: str, episode: int) -> int:
        """Return the newest revision of an episode that is here, -1 when there is none."""
        return self._revisions.get((run_id, episode), -1)

    def is_first(self, number: int) -> bool:
        """Tell whether no other revision of the episode came before this one."""
        return self._first[number]

    def files(self, count: int) -> list[tuple[EpisodeKey, int]]:
        """Return identity and size [bytes] of the first `count` episodes' files, -1 for one that is gone."""
        return [(key, _size(path)) for key, path in zip(self._keys[:count], self._paths[:count], strict=True)]

    def size(self, number: int) -> int:
        """Return the size of the file of the episode that came as `number` [bytes]."""
        return _size(self._paths[number])

    def add(self, episode: EpisodeArrays, payload: bytes | None = None) -> int:
        """Bring an episode to the disk and return its number. `payload` is its message where there is one.

        Raises:
            OSError: the disk is full or failing; nothing is added.
            MalformedMessageError: the episode cannot be written as a message.
        """
        key = episode.key
        name = f"{len(self._paths):08d}-{key.run_id}-{key.episode:06d}-r{key.revision}.msgpack"
        data = payload if payload is not None else pack(episode_message(episode))
        try:
            write_whole(self._folder / name, data)
        except OSError:
            with suppress(OSError):
                # the rename may have been made: the next episode gets this number, which may not be there twice
                (self._folder / name).unlink(missing_ok=True)
            raise
        self._note(self._folder / name, key)
        return len(self._paths) - 1

    def load(self, number: int) -> EpisodeArrays:
        """Return the episode that came as `number`.

        Raises:
            BadInputError: its file is damaged.
            OSError: it cannot be read now, which says nothing of what is in it.
        """
        path = self._paths[number]
        data = path.read_bytes()
        try:
            message = unpack_robot(data)
            if not isinstance(message, EpisodeMessage):
                raise MalformedMessageError(f"message is a {message.type}")
            return episode_arrays(message)
        except MalformedMessageError as error:
            raise BadInputError(f"{path}: no sound stored episode ({error}); restore it or start anew") from error

    def _note(self, path: Path, key: EpisodeKey) -> None:
        self._paths.append(path)
        self._keys.append(key)
        identity = (key.run_id, key.episode)
        self._first.append(identity not in self._revisions)
        self._revisions[identity] = max(self._revisions.get(identity, -1), key.revision)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1

"""What a run has committed, for a learner that must have all of it: the files themselves are what waits."""

from __future__ import annotations

from pathlib import Path

from policy.episode_file import DEMO, open_episode
from policy.episode_reader import read_episode
from policy.learner_episode import EpisodeArrays, EpisodeKey, of_episode
from robot.errors import BadInputError


class EpisodeSpool:
    """The newest revision of every episode of one run, found in its folder; nothing is kept in memory but names."""

    def __init__(self, folder: Path, run_id: str) -> None:
        """Watch `folder`, where episodes of other runs are left alone.

        Attributes:
            problem: the last file that could not be read, or "".
        """
        self._folder, self._run_id = folder, run_id
        self._looked: dict[str, tuple[int, int, int]] = {}
        self._paths: dict[int, Path] = {}
        self._revisions: dict[int, int] = {}
        self.problem = ""

    def look(self) -> list[EpisodeKey]:
        """Return the episodes that are new or have a new label since the last look, by their numbers.

        Costs a `stat` for each file and a millisecond for each that changed.
        """
        found = []
        for path in self._folder.glob("*.h5"):
            try:
                status = path.stat()
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self._looked.get(path.name) == seen:
                    continue
                self._looked[path.name] = seen
                key, ticks = _identity(path)
            except FileNotFoundError:
                continue
            except BadInputError as error:
                self.problem = str(error)
                continue
            # killed before its first rows were on the disk, an episode is there and says nothing
            if ticks and key.run_id == self._run_id and key.revision > self._revisions.get(key.episode, -1):
                self._paths[key.episode], self._revisions[key.episode] = path, key.revision
                found.append(key)
        return sorted(found)

    def read(self, number: int) -> EpisodeArrays:
        """Return the newest revision of an episode that `look` found.

        Raises:
            BadInputError: its file is damaged, or was never found.
        """
        if number not in self._paths:
            raise BadInputError(f"{self._folder}: has no episode {number} of run {self._run_id}; restore its file")
        return of_episode(read_episode(self._paths[number]))


def _identity(path: Path) -> tuple[EpisodeKey, int]:
    """Return which episode a file holds and how many ticks of it. Raises BadInputError."""
    with open_episode(path) as file:
        attributes = file[DEMO].attrs
        try:
            key = EpisodeKey(str(attributes["run_id"]), int(attributes["episode"]), int(attributes["revision"]))
            return key, int(attributes["num_samples"])
        except (KeyError, ValueError, TypeError):
            raise BadInputError(f"{path}: does not say which episode it is; restore the file") from None

"""Opens committed episodes: one by path, or the newest revision of each in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from policy.episode_file import CREATING, DEMO, PARTIAL, open_episode, read_header, read_labels, read_rows
from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import Fields
from policy.episode_streams import stream_group
from policy.stream_reader import Stream, read_stream
from robot.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode file, checked; its arrays are read when asked for and no file stays open.

    Attributes:
        labels: every outcome given so far, the one in force last.
        length: number of rows T.
    """

    path: Path
    header: EpisodeHeader
    labels: tuple[EpisodeOutcome, ...]
    length: int

    @property
    def outcome(self) -> EpisodeOutcome:
        """The label in force."""
        return self.labels[-1]

    @property
    def revision(self) -> int:
        """0 as recorded, one more for each later label."""
        return len(self.labels) - 1

    @property
    def identity(self) -> tuple[str, int, int]:
        """(run, episode, revision)."""
        return self.header.run_id, self.header.episode, self.revision

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[np.void]:
        """Return rows [start, stop) exactly as recorded, a structured array (stop - start,)."""
        start, stop, _ = slice(start, stop).indices(self.length)
        with open_episode(self.path) as file:
            return read_rows(file[DEMO], self.header.spec, start, stop)

    def arrays(self, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Return whole datasets by their path below /data/demo_0, (T, ...) or (T - 1, ...) for `measured`.

        Raises:
            BadInputError: no such dataset in this schema.
        """
        fields = self.header.spec.fields() | self.header.spec.measured_fields()
        found: dict[str, NDArray[np.generic]] = {}
        with open_episode(self.path) as file:
            for name in names:
                if name not in fields:
                    raise BadInputError(f"{self.path}: has no dataset {name!r}; docs/episode_format.md lists them")
                kind, shape = fields[name]
                found[name] = file[DEMO][name][:] if np.prod(shape) else np.zeros((self.length, *shape), kind)
        return found

    def array(self, name: str) -> NDArray[np.generic]:
        """Return one whole dataset. Raises BadInputError as `arrays` does."""
        return self.arrays([name])[name]

    def stream(self, name: str) -> Stream:
        """Return the full-size frames of a camera, or its depth as `<camera>_depth`.

        Raises:
            BadInputError: the episode has no such stream.
        """
        for spec in self.header.streams:
            if spec.name == name:
                return read_stream(self.path, spec)
        there = ", ".join(spec.name for spec in self.header.streams) or "none"
        raise BadInputError(f"{self.path}: has no stream {name!r}; it has {there}")

    def tick_frames(self, stream: Stream) -> NDArray[np.int64]:
        """Return the index in `stream` of the frame that each tick used, shape (T,); -1 where it has none of it."""
        cameras = [camera for camera, _, _ in self.header.spec.cameras]
        if stream.spec.camera not in cameras:
            raise BadInputError(f"{self.path}: no tick looks at camera {stream.spec.camera!r}, only {cameras}")
        logged = self.arrays(["tick/frame_id", "tick/captured_s"])
        column = cameras.index(stream.spec.camera)
        used = zip(
            logged["tick/frame_id"][:, column].tolist(), logged["tick/captured_s"][:, column].tolist(), strict=True
        )
        # by both: a camera that was started anew may have begun to count anew
        places = {
            pair: at for at, pair in enumerate(zip(stream.frame_id.tolist(), stream.captured_s.tolist(), strict=True))
        }
        return np.array([places.get(pair, -1) for pair in used], np.int64)


def read_episode(path: Path, *, as_executed: bool = False) -> Episode:
    """Open and check one committed episode.

    Args:
        path: a `.h5` file.
        as_executed: True when `commanded` and `measured` will be taken for what the arm did because of it.

    Raises:
        BadInputError: missing, empty, truncated, not HDF5, not an episode, of another schema version, still a
            partial, damaged, or open-loop where executed data is asked for.
    """
    if path.suffix in (PARTIAL, CREATING):
        raise BadInputError(
            f"{path}: a recording that was never finished; make it readable with `replay_episode.py recover {path}`"
        )
    with open_episode(path) as file:
        demo = file[DEMO]
        header, labels = read_header(path, demo), read_labels(path, file)
        length = int(demo.attrs.get("num_samples", -1))
        _check(path, demo, header.spec.fields(), length)
        _check(path, demo, header.spec.measured_fields(), max(0, length - 1))
        for spec in header.streams:
            stream_group(path, demo, spec)
    if as_executed and header.open_loop:
        raise BadInputError(
            f"{path}: recorded open loop, the arm did not follow its commands; use episodes of an arm that did"
        )
    return Episode(path=path, header=header, labels=tuple(labels), length=length)


def latest_revisions(folder: Path) -> list[Episode]:
    """Open every `*.h5` of a folder, the newest revision of each episode only, by run and index.

    Raises:
        BadInputError: the folder is missing, or a file in it is not a sound episode.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder; name one that holds episodes (*.h5)")
    newest: dict[tuple[str, int], Episode] = {}
    for path in sorted(folder.glob("*.h5")):
        episode = read_episode(path)
        run_id, index, revision = episode.identity
        if (run_id, index) not in newest or newest[run_id, index].revision < revision:
            newest[run_id, index] = episode
    return [newest[key] for key in sorted(newest)]


def _check(path: Path, demo: h5py.Group, fields: Fields, length: int) -> None:
    for name, (kind, shape) in fields.items():
        if not np.prod(shape):
            continue
        if name not in demo:
            raise BadInputError(f"{path}: has no dataset {name}; the file is damaged, restore it")
        found = demo[name]
        if found.shape != (length, *shape) or found.dtype != np.dtype(kind):
            raise BadInputError(
                f"{path}: {name} is {found.dtype} {found.shape}, must be {np.dtype(kind)} {(length, *shape)}; "
                "the file is damaged, restore it"
            )

"""Reads the full-size frames of a committed episode, each checked against its digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.frame import FrameStamp
from policy.episode_file import DEMO, open_episode
from policy.episode_header import StreamSpec
from policy.episode_streams import (
    DROPPED,
    INDEX_DIGEST,
    POOL,
    Index,
    blocks,
    index_digest,
    is_sound,
    read_index,
    stamp_of,
    stream_attributes,
    stream_group,
)
from policy.stream_codec import Pixels
from robot.errors import BadInputError


@dataclass(frozen=True, kw_only=True, eq=False)  # an array has no one truth value to compare by
class Stream:
    """The frames of one stream, in the order in which they came; their bytes are read when asked for.

    Attributes:
        path: the episode.
        dropped: frames of the episode's time that the recorder lost; what the camera lost is missing in `frame_id`.
        index_digest: checksum of the index and `dropped` as recorded (`policy.episode_streams`); None: it is missing.
    """

    path: Path
    spec: StreamSpec
    dropped: int
    index_digest: int | None
    _index: Index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def frame_id(self) -> NDArray[np.int64]:
        """Id of each frame, (N,)."""
        return self._index["frame_id"]

    @property
    def captured_s(self) -> NDArray[np.float64]:
        """When each frame was taken, host monotonic clock [s], (N,)."""
        return self._index["captured_s"]

    @property
    def digest(self) -> NDArray[np.uint64]:
        """Checksum of each frame's stamp and bytes (`policy.episode_streams.frame_digest`), (N,)."""
        return self._index["digest"]

    def stamp(self, index: int) -> FrameStamp:
        """Return which frame it is and when it was taken. Raises IndexError."""
        return stamp_of(self._index[index])

    def index_of(self, frame_id: int) -> int | None:
        """Return the index of the newest frame of that id; None where it is not in the stream."""
        found = np.flatnonzero(self.frame_id == frame_id)
        return int(found[-1]) if len(found) else None

    def encoded(self, index: int) -> bytes:
        """Return the bytes of one frame as recorded. Raises IndexError, and BadInputError where they were changed."""
        place = range(len(self))[index]
        return bytes(next(self._bytes(place, place + 1)))

    def pixels(self, index: int) -> Pixels:
        """Return one frame decoded: (H, W, 3) uint8, red first, or (H, W) float32 [m]. Raises as `encoded` does."""
        place = range(len(self))[index]
        return next(self.frames(place, place + 1))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Pixels]:
        """Yield frames [start, stop) decoded; the file stays open meanwhile.

        Raises:
            BadInputError: the bytes of a frame were changed, or are no picture of this stream.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        codec = self.spec.picture_codec()
        for place, data in enumerate(self._bytes(start, stop), start):
            try:
                yield codec.decode(bytes(data))
            except ValueError as error:
                raise BadInputError(f"{self._where(place)} is no picture ({error}); restore the file") from None

    @property
    def whole(self) -> bool:
        """Whether index and `dropped` are those of their digest: no frame taken out, added, changed or moved."""
        return self.index_digest == index_digest(self._index, self.dropped)

    def unsound(self) -> Iterator[int]:
        """Yield the index of every frame whose bytes or stamp are not those of its digest."""
        with open_episode(self.path) as file:
            for places, pieces in blocks(self._index, stream_group(self.path, file[DEMO], self.spec)[POOL]):
                for place, piece in zip(places, pieces, strict=True):
                    if not is_sound(self._index[place], piece):
                        yield place

    def _bytes(self, start: int, stop: int) -> Iterator[memoryview]:
        with open_episode(self.path) as file:
            index = self._index[start:stop]
            for places, pieces in blocks(index, stream_group(self.path, file[DEMO], self.spec)[POOL]):
                for place, piece in zip(places, pieces, strict=True):
                    if not is_sound(index[place], piece):
                        raise BadInputError(
                            f"{self._where(start + place)} was changed after recording; restore the file"
                        )
                    yield piece

    def _where(self, place: int) -> str:
        return f"{self.path}: frame {place} of stream {self.spec.name!r}"


def read_stream(path: Path, spec: StreamSpec, *, whole: bool = True) -> Stream:
    """Open one stream of a committed episode.

    Args:
        whole: refuse one whose index was changed; without, `Stream.whole` says so.

    Raises:
        BadInputError: it is missing or not whole, or says something else of itself than the header.
    """
    with open_episode(path) as file:
        group = stream_group(path, file[DEMO], spec)
        for name, expected in stream_attributes(spec).items():
            if group.attrs.get(name) != expected:
                raise BadInputError(
                    f"{path}: stream {spec.name!r} says {name} {group.attrs.get(name)!r}, the header {expected!r}; "
                    "the file is damaged, restore it"
                )
        index, dropped, digest = read_index(group), group.attrs.get(DROPPED), group.attrs.get(INDEX_DIGEST)
    index.setflags(write=False)
    stream = Stream(
        path=path,
        spec=spec,
        dropped=-1 if dropped is None else int(dropped),
        index_digest=None if digest is None else int(digest),
        _index=index,
    )
    if whole and not stream.whole:
        raise BadInputError(
            f"{path}: the index of stream {spec.name!r} was changed after recording (a frame was taken out, added, "
            "changed or moved, or `dropped` is another); restore the file"
        )
    return stream

"""What the loop gives its recorder for full-size frames: the cameras' rings, and marks where episodes begin and end.

Beyond two marks an episode the loop does nothing for them: the recorder reads the rings itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field

from perception.config import LiveCameraConfig
from perception.frame_ring import FrameLayout, FrameRing
from policy.episode_header import StreamSpec
from policy.stream_codec import Codec
from robot.shared_ring import SharedRing
from robot.strict import Strict

_MARK = struct.Struct("=qqd")  # episode, whether it begins, when
_COUNT = struct.Struct("=q")
_MARKS = 64  # a successor finds the marks of so many episodes and their ends that wait for it, halved


@dataclass(frozen=True, kw_only=True)
class StreamSource:
    """A camera of which full-size frames are recorded.

    Attributes:
        ring: its frames, in the loop's hands; the recorder reads the same memory.
        specs: what is recorded of each frame: colour, depth or both.
    """

    ring: FrameRing
    specs: tuple[StreamSpec, ...]

    @classmethod
    def of(cls, camera: LiveCameraConfig, ring: FrameRing) -> Self | None:
        """Return what the station wants recorded of a camera, None where that is nothing."""
        specs = stream_specs(camera)
        return cls(ring=ring, specs=specs) if specs else None


def stream_specs(camera: LiveCameraConfig) -> tuple[StreamSpec, ...]:
    """Return the streams that a station asks for of one camera."""
    codecs = {"jpeg": [Codec.JPEG], "lossless": [Codec.LOSSLESS], "none": []}[camera.stream]
    return tuple(
        StreamSpec(
            camera=camera.name,
            codec=codec,
            height=camera.height,
            width=camera.width,
            quality=camera.jpeg_quality if codec is Codec.JPEG else None,
        )
        for codec in codecs + [Codec.DEPTH] * camera.depth_stream
    )


class StreamArgument(Strict):
    """A source as it stands on the recorder's command line.

    Attributes:
        file: descriptor of the ring, which the recorder inherits.
    """

    file: Annotated[int, Field(ge=0)]
    layout: FrameLayout
    specs: tuple[StreamSpec, ...]


class StreamArguments(Strict):
    """All sources, in the order of the counts in each mark, and the descriptor of the marks."""

    marks: Annotated[int, Field(ge=0)]
    sources: tuple[StreamArgument, ...]

    @property
    def specs(self) -> tuple[StreamSpec, ...]:
        """The streams of an episode."""
        return tuple(spec for source in self.sources for spec in source.specs)


def stream_arguments(sources: Sequence[StreamSource], marks: EpisodeMarks) -> StreamArguments:
    """Return what a recorder is told of `sources`."""
    return StreamArguments(
        marks=marks.file,
        sources=tuple(
            StreamArgument(file=source.ring.file, layout=source.ring.layout, specs=source.specs) for source in sources
        ),
    )


def read_arguments(text: str) -> StreamArguments:
    """Read them back. Raises ValueError."""
    return StreamArguments.model_validate_json(text)


@dataclass(frozen=True, kw_only=True)
class EpisodeMark:
    """The begin or the end of an episode.

    Attributes:
        at_s: when, host monotonic clock [s].
        counts: how many frames each source had published by then.
    """

    episode: int
    begins: bool
    at_s: float
    counts: tuple[int, ...]


class EpisodeMarks:
    """The last marks, in shared memory: the loop writes them, the recorder's threads read them at once.

    They do not come with the rows, because the recorder may be busy committing the last episode when the next one
    begins, and a camera's ring does not wait.
    """

    def __init__(self, file: int, sources: int) -> None:
        """Take over the file descriptor of the marks for so many sources. Raises HardwareError."""
        self._ring, self._sources = SharedRing(file), sources

    @classmethod
    def new(cls, sources: int) -> Self:
        """Make them. Raises OSError where there is no memory for them."""
        record_bytes = _MARK.size + sources * _COUNT.size
        return cls(SharedRing.allocate(slots=_MARKS, record_bytes=record_bytes), sources)

    @property
    def file(self) -> int:
        """File descriptor, for the recorder."""
        return self._ring.file

    @property
    def count(self) -> int:
        """How many marks were ever set."""
        return self._ring.count

    @property
    def oldest(self) -> int:
        """Number of the oldest mark that is there."""
        return max(0, self.count - _MARKS)

    def set(self, mark: EpisodeMark) -> None:
        """Set the next mark. The loop alone."""
        assert len(mark.counts) == self._sources
        counts = b"".join(map(_COUNT.pack, mark.counts))
        self._ring.write(_MARK.pack(mark.episode, mark.begins, mark.at_s), counts)

    def read(self, number: int) -> EpisodeMark | None:
        """Return mark `number`; None when it is not there any more, or not yet."""
        record = bytearray(_MARK.size + self._sources * _COUNT.size)
        if not self._ring.read(number, record):
            return None
        episode, begins, at_s = _MARK.unpack_from(record)
        counts = tuple(count for (count,) in _COUNT.iter_unpack(record[_MARK.size :]))
        return EpisodeMark(episode=episode, begins=bool(begins), at_s=at_s, counts=counts)

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        self._ring.close()

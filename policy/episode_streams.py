"""The full-size frames of an episode in its file: /data/demo_0/streams/<name>, written beside the rows.

HDF5's SWMR mode has no data of variable length, so the bytes of all frames of a stream lie one after another in one
pool, and an index says of each frame where. A frame counts when its bytes are those of its digest: in whatever order
a kill let them through to the file, the index points at nothing else once `copy_streams` has been over it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5s
from numpy.typing import NDArray

from perception.frame import FrameStamp
from policy.episode_header import StreamSpec
from robot.errors import BadInputError

STREAMS = "streams"
POOL, DROPPED, INDEX_DIGEST = "bytes", "dropped", "index_digest"
# one value for each frame
INDEX = np.dtype(
    [
        ("frame_id", "i8"),
        ("captured_s", "f8"),
        ("arrived_s", "f8"),
        ("uncertainty_s", "f8"),
        ("offset", "i8"),
        ("length", "i8"),
        ("digest", "u8"),  # of the other values but the offset, and of the bytes
    ]
)

_STAMP = struct.Struct("<qddd")
_POOL_CHUNK = 524288
_INDEX_CHUNK = 1024
_BLOCK_BYTES = 8_000_000

Index = NDArray[np.void]


@dataclass(frozen=True, kw_only=True)
class EncodedFrame(FrameStamp):
    """A full-size frame as its stream's codec made it."""

    data: bytes


def frame_digest(stamp: FrameStamp, data: bytes | memoryview) -> int:
    """Return a 64-bit checksum of a frame's stamp and bytes. Like that of a row it finds accidents, not forgers."""
    head = _STAMP.pack(stamp.frame_id, stamp.captured_s, stamp.arrived_s, stamp.uncertainty_s)
    return zlib.crc32(data, zlib.crc32(head)) << 32 | zlib.adler32(data, zlib.adler32(head))


def index_digest(index: Index, dropped: int) -> int:
    """Return such a checksum of a stream's whole index, column by column, and of how many frames it lacks.

    It finds what the frames' own ones cannot: one that was taken out, and two in each other's place.
    """
    first, second = 0, 1  # what both sums begin with
    for part in (*(index[name].tobytes() for name in INDEX.names or ()), struct.pack("<q", dropped)):
        first, second = zlib.crc32(part, first), zlib.adler32(part, second)
    return first << 32 | second


class StreamWriter:
    """One stream of an open recording. Frames wait in memory until `write`; the caller flushes the file."""

    def __init__(self, demo: h5py.Group, spec: StreamSpec) -> None:
        """Make all that the stream will ever have; afterwards the file may go into SWMR mode."""
        group = demo.create_group(f"{STREAMS}/{spec.name}")
        self._pool = _growing(group, POOL, np.dtype("u1"), _POOL_CHUNK).id
        self._index = {name: _growing(group, name, INDEX[name], _INDEX_CHUNK).id for name in INDEX.names or ()}
        self._noted = group.create_dataset(DROPPED, data=np.zeros(1, np.int64))
        self._waiting: list[EncodedFrame] = []
        self._frames = self._noted_dropped = 0
        self.written_bytes = self.waiting_bytes = 0
        self.dropped = 0

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._frames

    @property
    def unwritten(self) -> bool:
        """True when `write` has something to do."""
        return bool(self._waiting) or self.dropped != self._noted_dropped

    def append(self, frame: EncodedFrame) -> None:
        """Keep one frame for the next `write`."""
        self._waiting.append(frame)
        self.waiting_bytes += len(frame.data)

    def shed(self) -> None:
        """Let go of what waits; it counts as dropped."""
        self.dropped += len(self._waiting)
        self._waiting, self.waiting_bytes = [], 0

    def write(self) -> None:
        """Write what waits: the bytes, then the index. Raises OSError or RuntimeError, as h5py does."""
        if self._waiting:
            frames, offset = np.zeros(len(self._waiting), INDEX), self.written_bytes
            for place, frame in enumerate(self._waiting):
                stamp = frame.frame_id, frame.captured_s, frame.arrived_s, frame.uncertainty_s
                frames[place] = (*stamp, offset, len(frame.data), frame_digest(frame, frame.data))
                offset += len(frame.data)
            data = np.frombuffer(b"".join(frame.data for frame in self._waiting), np.uint8)
            _extend(self._pool, self.written_bytes, data)
            for name, dataset in self._index.items():
                _extend(dataset, self._frames, np.ascontiguousarray(frames[name]))
            self._frames += len(frames)
            self.written_bytes += len(data)
            self._waiting, self.waiting_bytes = [], 0
        if self.dropped != self._noted_dropped:
            self._noted[0] = self._noted_dropped = self.dropped

    def close(self) -> None:
        """Let go of the file. What waits is lost."""
        self._waiting, self._index = [], {}
        del self._pool, self._noted


def copy_streams(path: Path, source: h5py.Group, target: h5py.Group, streams: Sequence[StreamSpec]) -> None:
    """Write the streams of a recording anew, from its group `DEMO` to the final file's.

    A frame whose bytes are not there, or not those of its digest, is left out and counted as dropped.

    Raises:
        BadInputError: the recording at `path` lacks a stream that its header names.
    """
    for spec in streams:
        group = stream_group(path, source, spec)
        index, pool = read_index(group), group[POOL]
        made = target.create_group(f"{STREAMS}/{spec.name}")
        copied = _growing(made, POOL, np.dtype("u1"), _POOL_CHUNK).id
        kept, length = np.zeros(len(index), bool), 0
        for places, block in blocks(index, pool):
            sound = [
                (place, piece) for place, piece in zip(places, block, strict=True) if is_sound(index[place], piece)
            ]
            data = np.frombuffer(b"".join(piece for _, piece in sound), np.uint8)
            _extend(copied, length, data)
            length += len(data)
            kept[[place for place, _ in sound]] = True
        index = index[kept]
        index["offset"] = np.cumsum(index["length"]) - index["length"]
        for name in INDEX.names or ():
            made.create_dataset(name, data=index[name])
        made.attrs.update(stream_attributes(spec))
        dropped = int(group[DROPPED][0]) + int((~kept).sum())
        made.attrs[DROPPED] = dropped
        made.attrs[INDEX_DIGEST] = np.uint64(index_digest(index, dropped))


def stream_group(path: Path, demo: h5py.Group, spec: StreamSpec) -> h5py.Group:
    """Return the group of one stream. Raises BadInputError where it is not there or not whole."""
    where = f"{STREAMS}/{spec.name}"
    for name in (POOL, *(INDEX.names or ())):
        if f"{where}/{name}" not in demo:
            raise BadInputError(f"{path}: has no dataset {where}/{name}; the file is damaged, restore it")
    return demo[where]


def read_index(group: h5py.Group) -> Index:
    """Return the index of a stream, one element a frame; of one that a kill cut off, as many as are whole."""
    columns = {name: group[name][:] for name in INDEX.names or ()}
    index = np.zeros(min(map(len, columns.values())), INDEX)
    for name, values in columns.items():
        index[name] = values[: len(index)]
    return index


def blocks(index: Index, pool: h5py.Dataset) -> Iterator[tuple[list[int], list[memoryview]]]:
    """Yield the frames with the bytes that the index gives them, some 8 MB at a time.

    A frame that the index puts outside of the pool has no bytes.
    """
    size = len(pool)
    places: list[int] = []
    spans: list[tuple[int, int]] = []
    for place, (offset, length) in enumerate(zip(index["offset"].tolist(), index["length"].tolist(), strict=True)):
        inside = min(offset, length) >= 0 and offset + length <= size
        if spans and (not inside or spans[-1][1] != offset or offset + length - spans[0][0] > _BLOCK_BYTES):
            yield places, _pieces(pool, spans)
            places, spans = [], []
        if inside:
            places.append(place)
            spans.append((offset, offset + length))
        else:
            yield [place], [memoryview(b"")]
    if spans:
        yield places, _pieces(pool, spans)


def stamp_of(entry: np.void) -> FrameStamp:
    """Return the stamp in one element of an index."""
    return FrameStamp(
        frame_id=int(entry["frame_id"]),
        captured_s=float(entry["captured_s"]),
        arrived_s=float(entry["arrived_s"]),
        uncertainty_s=float(entry["uncertainty_s"]),
    )


def is_sound(entry: np.void, data: bytes | memoryview) -> bool:
    """Return whether a frame's bytes and stamp are those of its digest."""
    return len(data) == int(entry["length"]) > 0 and int(entry["digest"]) == frame_digest(stamp_of(entry), data)


def stream_attributes(spec: StreamSpec) -> dict[str, str | int]:
    """Return what a plain HDF5 reader finds of a stream, by attribute of its group."""
    attributes: dict[str, str | int] = {
        "camera": spec.camera,
        "codec": spec.codec.value,
        "height": spec.height,
        "width": spec.width,
    }
    if spec.quality is not None:
        attributes["quality"] = spec.quality
    return attributes


def _growing(group: h5py.Group, name: str, dtype: np.dtype[np.generic], chunk: int) -> h5py.Dataset:
    return group.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=dtype)


def _extend(dataset: h5py.h5d.DatasetID, length: int, values: NDArray[np.generic]) -> None:
    """Write `values` behind the `length` ones that are there; h5py's own indexing costs four times as much."""
    if len(values):
        dataset.set_extent((length + len(values),))
        there = dataset.get_space()
        there.select_hyperslab((length,), (len(values),))
        dataset.write(h5s.create_simple((len(values),)), there, values)


def _pieces(pool: h5py.Dataset, spans: list[tuple[int, int]]) -> list[memoryview]:
    first = spans[0][0]
    data = memoryview(pool[first : spans[-1][1]].data)
    return [data[start - first : stop - first] for start, stop in spans]

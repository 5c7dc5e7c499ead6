"""The frames of one camera in shared memory: written once by its process, read by loop, recorder and viewer."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.config import LiveCameraConfig, Name
from perception.frame import FrameStamp
from perception.frame_source import Place
from robot.errors import HardwareError
from robot.shared_ring import SharedRing
from robot.strict import Strict

_STAMP = struct.Struct("=qdddd24x")  # frame id, captured, arrived, uncertainty, published; to a whole cache line
_RECORDED_S = 1.0  # how long a recorder may stand still without losing a frame
_LEAST_SLOTS = 8 + 1  # of which one is being written

Side = Annotated[int, Field(ge=1, le=8192)]


class FrameLayout(Strict):
    """What a ring holds of each frame, which writer and readers are told alike.

    Attributes:
        camera: name in the station.
        image: (height, width) of the policy's images [px].
        full: (height, width) of the device's own [px]; where it is the same, one picture is kept and not two.
        depth: whether there is depth of the size of `full`.
        slots: frames that are kept, and the one that is being written.
    """

    camera: Name
    image: tuple[Side, Side]
    full: tuple[Side, Side]
    depth: bool = False
    slots: Annotated[int, Field(ge=2, le=1024)] = _LEAST_SLOTS

    @classmethod
    def of(cls, camera: LiveCameraConfig, *, usable_s: float = 0.0, depth: bool = False) -> Self:
        """Return the layout for a camera of a station, with its depth where that is recorded or wanted otherwise.

        Kept are the frames of the last `usable_s`, which a synchroniser may still choose, and where they are recorded
        those of the last second.
        """
        recorded = camera.stream != "none" or camera.depth_stream
        kept_s = max(usable_s, _RECORDED_S if recorded else 0.0)
        return cls(
            camera=camera.name,
            image=camera.image_size,
            full=(camera.height, camera.width),
            depth=depth or camera.depth_stream,
            slots=max(_LEAST_SLOTS, math.ceil(kept_s * camera.rate_hz) + 3),
        )

    @property
    def image_bytes(self) -> int:
        """Bytes of a policy image."""
        return 3 * math.prod(self.image)

    @property
    def full_offset(self) -> int:
        """Where the full picture begins in a record [bytes]; parts begin at cache lines, as decoders like it."""
        return _STAMP.size + (_lines(self.image_bytes) if self.image != self.full else 0)

    @property
    def depth_offset(self) -> int:
        """Where the depth begins, if there is any [bytes]."""
        return self.full_offset + _lines(3 * math.prod(self.full))

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.depth_offset + (_lines(4 * math.prod(self.full)) if self.depth else 0)


@dataclass(frozen=True, kw_only=True)
class PublishedStamp(FrameStamp):
    """A stamp as found in a ring.

    Attributes:
        number: of its record; counts up by one per published frame, also where the device dropped some.
        published_s: when the camera's process had finished with the frame and began to write it [s].
    """

    number: int
    published_s: float


class FrameRing:
    """A `SharedRing` of frames. A reader takes sizes from the layout alone and checks every stamp that it finds."""

    def __init__(self, file: int, layout: FrameLayout) -> None:
        """Take over the file descriptor of a ring.

        Raises:
            HardwareError: the memory is not a ring of this layout.
        """
        self.layout = layout
        self._ring = SharedRing(file)
        if (self._ring.slots, self._ring.record_bytes) != (layout.slots, layout.record_bytes):
            got = f"{self._ring.slots} records of {self._ring.record_bytes} bytes"
            self._ring.close()
            raise HardwareError(
                f"camera {layout.camera!r}: its ring has {got}, the station says {layout.slots} of"
                f" {layout.record_bytes}; start the run again"
            )
        self._image_shape, self._full_shape = (*layout.image, 3), (*layout.full, 3)
        self._place: Place | None = None  # on loan

    @classmethod
    def new(cls, layout: FrameLayout) -> Self:
        """Make a ring. Raises OSError where there is no memory for it."""
        return cls(SharedRing.allocate(slots=layout.slots, record_bytes=layout.record_bytes), layout)

    @property
    def file(self) -> int:
        """File descriptor, for the processes that share the ring."""
        return self._ring.file

    @property
    def count(self) -> int:
        """How many frames were ever published."""
        return self._ring.count

    def loan(self) -> Place:
        """Return where the next frame may be written, for `publish` to find there. The camera's process alone.

        From now on the oldest frame is not there any more. It is lent again until a frame is published; one of which
        nothing came needs no taking back.
        """
        if self._place is None:
            layout, record = self.layout, self._ring.loan()
            full = np.frombuffer(record, np.uint8, 3 * math.prod(layout.full), layout.full_offset)
            depth_m = (
                np.frombuffer(record, np.float32, math.prod(layout.full), layout.depth_offset) if layout.depth else None
            )
            self._place = Place(
                rgb=full.reshape(self._full_shape),
                depth_m=None if depth_m is None else depth_m.reshape(layout.full),
            )
        return self._place

    def publish(
        self,
        stamp: FrameStamp,
        image: NDArray[np.uint8],
        full: NDArray[np.uint8],
        depth_m: NDArray[np.float32] | None = None,
    ) -> int:
        """Write a frame and return the number of its record. The camera's process alone.

        Args:
            stamp: when it was taken.
            image: what the policy gets, of the layout's size; not looked at where that is the size of `full`.
            full: the device's own picture, of the layout's size; not copied where it is that of the `loan`.
            depth_m: float32 [m], of the size of `full`; only where the layout has depth, and then required. As `full`.

        Raises:
            ValueError: a size or type is not the layout's; nothing was published.
        """
        layout, published_s = self.layout, time.monotonic()
        _check("image", image, self._image_shape, np.uint8)
        _check("full picture", full, self._full_shape, np.uint8)
        if layout.depth:
            if depth_m is None:
                raise ValueError(f"camera {layout.camera!r}: a frame without depth, and the layout has it")
            _check("depth", depth_m, layout.full, np.float32)
        place, record = self.loan(), self._ring.loan()  # the same bytes
        if full is not place.rgb:
            place.rgb[...] = full
        if place.depth_m is not None and depth_m is not place.depth_m:
            place.depth_m[...] = depth_m
        if layout.image != layout.full:
            np.frombuffer(record, np.uint8, layout.image_bytes, _STAMP.size).reshape(image.shape)[...] = image
        stamped = stamp.frame_id, stamp.captured_s, stamp.arrived_s, stamp.uncertainty_s, published_s
        _STAMP.pack_into(record, 0, *stamped)
        self._place = None
        return self._ring.commit()

    def newest_first(self, after: int = -1) -> Iterator[PublishedStamp]:
        """Yield the stamps of the frames that are there, beginning with the newest, of records later than `after`."""
        count = self.count
        for number in range(count - 1, max(after, count - 1 - self.layout.slots), -1):
            stamp = self._read_stamp(number)
            if stamp is not None:
                yield stamp

    def stamps(self, count: int) -> list[PublishedStamp]:
        """Return the stamps of the newest frames, at most `count`, oldest first."""
        newest = self.newest_first()
        return [stamp for _, stamp in zip(range(count), newest, strict=False)][::-1]

    def image(self, number: int, out: NDArray[np.uint8]) -> bool:
        """Copy the policy image of record `number` into `out`, C-contiguous; False when it is there no more."""
        _check("image", out, self._image_shape, np.uint8)
        return self._ring.read(number, out.data, _STAMP.size)

    def full(self, number: int, rgb_out: NDArray[np.uint8], depth_out: NDArray[np.float32] | None = None) -> bool:
        """Copy the full picture of record `number`, and its depth where it is asked for; False as for `image`.

        Raises:
            ValueError: an array is not of the layout's size, or depth is asked for where there is none.
        """
        _check("full picture", rgb_out, self._full_shape, np.uint8)
        if depth_out is None:
            return self._ring.read(number, rgb_out.data, self.layout.full_offset)
        if not self.layout.depth:
            raise ValueError(f"camera {self.layout.camera!r}: depth is asked for, and the layout has none")
        _check("depth", depth_out, self.layout.full, np.float32)
        return self._ring.read(number, rgb_out.data, self.layout.full_offset) and self._ring.read(
            number, depth_out.data, self.layout.depth_offset
        )

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        self._place = None
        self._ring.close()

    def _read_stamp(self, number: int) -> PublishedStamp | None:
        """Return the stamp of record `number`; None when it is there no more or cannot be one."""
        if not self._ring.holds(number):
            return None
        fields = _STAMP.unpack(self._ring.view(number, _STAMP.size))
        if not self._ring.holds(number):
            return None
        frame_id, captured_s, arrived_s, uncertainty_s, published_s = fields
        finite = math.isfinite(captured_s) and math.isfinite(arrived_s) and math.isfinite(published_s)
        if not (finite and frame_id >= 0 and captured_s <= arrived_s and 0.0 <= uncertainty_s < math.inf):
            return None
        return PublishedStamp(
            frame_id=frame_id,
            captured_s=captured_s,
            arrived_s=arrived_s,
            uncertainty_s=uncertainty_s,
            number=number,
            published_s=published_s,
        )


def _lines(size: int) -> int:
    """Bytes of whole cache lines for `size` bytes."""
    return -(-size // 64) * 64


def _check(what: str, array: NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{what} is {array.shape} {array.dtype}, the layout says {shape} {np.dtype(dtype).name}")

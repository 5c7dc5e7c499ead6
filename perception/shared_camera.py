"""A camera in a process of its own, as the loop sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from perception.frame import Frame, FrameStamp
from perception.frame_ring import FrameRing, PublishedStamp


class SharedCamera:
    """Reads the frames that a camera's process publishes. Nothing that happens to that process blocks it.

    The picture is copied once, into memory that whoever asked for it owns. A frame has no depth here: what is recorded
    of it goes from the ring to the recorder.

    Attributes:
        torn: frames asked for that were written over before they could be copied.
    """

    def __init__(self, ring: FrameRing) -> None:
        """Read `ring`, which stays its maker's to close."""
        self._ring = ring
        self._stamps: deque[PublishedStamp] = deque(maxlen=ring.layout.slots - 1)  # one may be on loan
        self._first: PublishedStamp | None = None
        self._newest: PublishedStamp | None = None
        self.torn = 0

    @property
    def name(self) -> str:
        """Name in the station."""
        return self._ring.layout.camera

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it gives the policy [px]."""
        return self._ring.layout.image

    @property
    def published(self) -> int:
        """Frames published since the first that was seen here."""
        return 0 if self._first is None or self._newest is None else self._newest.number - self._first.number + 1

    @property
    def dropped(self) -> int:
        """Frames that the camera took in that time and that never came, by the gaps in the frame ids."""
        if self._first is None or self._newest is None:
            return 0
        return max(0, self._newest.frame_id - self._first.frame_id + 1 - self.published)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest frames with `arrived_s <= now_s`, at most `count`, oldest first."""
        self._take_in()
        stamps = [stamp for stamp in self._stamps if stamp.arrived_s <= now_s][-count:]
        if stamps and (self._newest is None or stamps[-1].number > self._newest.number):
            self._newest = stamps[-1]
            self._first = self._first or stamps[0]
        return stamps

    def _take_in(self) -> None:
        """Read the stamps of the frames that were published since the last look; each is read once."""
        last = self._stamps[-1].number if self._stamps else -1
        if self._ring.count - 1 > last:
            self._stamps.extend(reversed(list(self._ring.newest_first(last))))

    def frame(self, stamp: FrameStamp) -> Frame | None:
        """Return the frame of one of these stamps; None when it was written over meanwhile, which `torn` counts."""
        assert isinstance(stamp, PublishedStamp), "a stamp that `recent` did not give"
        rgb = np.empty((*self.size, 3), np.uint8)
        if not self._ring.image(stamp.number, rgb):
            self.torn += 1
            return None
        rgb.flags.writeable = False
        return Frame(
            camera=self.name,
            frame_id=stamp.frame_id,
            captured_s=stamp.captured_s,
            arrived_s=stamp.arrived_s,
            uncertainty_s=stamp.uncertainty_s,
            rgb=rgb,
        )

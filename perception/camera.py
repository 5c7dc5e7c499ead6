"""The interface by which the loop sees every camera, wherever its driver runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from perception.frame import Frame, FrameStamp


class Camera(Protocol):
    """A source of frames. Entering opens it; constructors do no I/O. Nothing here ever blocks."""

    @property
    def name(self) -> str:
        """Name in the station."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it gives the policy [px]."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest frames with `arrived_s <= now_s`, at most `count`, oldest first."""
        ...

    def frame(self, stamp: FrameStamp) -> Frame | None:
        """Return the frame of one of these stamps in memory of its own; None when it is gone meanwhile."""
        ...

"""The interface every camera driver has."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from perception.frame import Frame


class Camera(Protocol):
    """A source of frames. Entering opens the device; constructors do no I/O."""

    @property
    def name(self) -> str:
        """Name in the station."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its frames [px]."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def latest(self, now_s: float) -> Frame | None:
        """Return the newest frame with `arrived_s <= now_s`, or None before the first. Never blocks."""
        ...

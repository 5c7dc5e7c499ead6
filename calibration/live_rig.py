"""What a capture needs of the rig in front of it: pictures and where the arm is, and nothing that could move it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from perception.rig_look import RigLook


class LiveRig(Protocol):
    """An opened rig that is only looked at. Entering opens it, leaving closes it."""

    @property
    def station(self) -> str:
        """Name of the station."""
        ...

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """(height, width) of each camera's own pictures [px], in the station's order."""
        ...

    @property
    def has_arm(self) -> bool:
        """Whether looks say where the arm is."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def look(self) -> RigLook:
        """Wait until there may be something new, a tenth of a second at most, and look.

        Raises:
            HardwareError: a process is gone that may not be started again.
        """
        ...

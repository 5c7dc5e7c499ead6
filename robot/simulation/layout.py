"""How a table is laid: drawn from a seed by a task, done by the world."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class Split(enum.Enum):
    """Disjoint families of layouts; each draws from its own random stream."""

    TRAINING = 1  # demonstrations and online episodes
    HELD_OUT = 2  # measurements only
    SELECTION = 3  # choosing checkpoints and settings


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Where the thing and its target are put.

    Attributes:
        object_m: centre of the thing, base frame or TCP frame, shape (3,) [m].
        object_quat_wxyz: its orientation in that frame.
        grip_m: width of the fingers round a thing that is put into the closed hand, in whose TCP frame it then is; 0
            for one that is put on the table [m].
        target_xy_m: centre of the target, base frame [m].
    """

    object_m: tuple[float, float, float]
    object_quat_wxyz: tuple[float, float, float, float]
    grip_m: float = 0.0
    target_xy_m: tuple[float, float]


class Layout(Protocol):
    """A task's own words for one arrangement; a frozen dataclass that the log keeps field by field."""

    @property
    def arrangement(self) -> Arrangement:
        """What the world is to do."""
        ...

"""What the operator window shows of a tick."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class Driver(enum.Enum):
    """Whose action reaches the arm."""

    POLICY = "policy"
    HUMAN = "human"
    HOLD = "hold"
    RESET = "reset"


@dataclass(frozen=True, kw_only=True)
class OperatorStatus:
    """One tick as the person sees it. Cheap to build: it refers to the tick's images and copies nothing.

    Attributes:
        images: per camera, shape (H, W, 3) uint8, red first; sizes may differ.
        driver: whose action reaches the arm.
        armed: False until the person arms, after a stop and after a fault.
        connected: False while the supervising device is unplugged.
        hold_reason: why the arm holds and what ends it; empty when nothing holds it.
        rate_hz: measured tick rate [Hz].
        wanted_rate_hz: tick rate of the station [Hz].
        tick: ticks since the start of the episode.
        episode: index of the episode, from 0.
        successes: episodes that ended in success so far.
        failures: episodes that ended in failure or timeout so far.
        notice: one line of news, such as new weights in force.
    """

    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    driver: Driver
    armed: bool
    connected: bool = True
    hold_reason: str = ""
    rate_hz: float
    wanted_rate_hz: float
    tick: int
    episode: int
    successes: int
    failures: int
    notice: str = ""

"""What the policy sees in one tick, and whether it may be trusted."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.arm_history import Around
from perception.cloud_ring import StampedCloud
from robot.arm_state import ArmState


class Verdict(enum.IntEnum):
    """Judgement on the frames of one observation; anything but FRESH makes the loop hold."""

    FRESH = 0
    STALE = 1
    SKEWED = 2
    REPEATED = 3
    MISSING = 4


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One synchronised observation.

    Attributes:
        images: exact policy input per camera, shape (H, W, 3) uint8.
        proprio: proprioception, shape (P,) float32, the manifest's keys one after another.
        proprio_s: the moment whose proprioception it is [s].
        around: the measured states that it was interpolated from; None where it is that of `state` itself.
        state: latest arm state at the tick's start.
        captured_s: per camera, capture time [s]; NaN where there is no frame.
        arrived_s: per camera, arrival time [s]; NaN where there is no frame.
        uncertainty_s: per camera, standard deviation of the capture time [s]; NaN where there is no frame.
        frame_ids: per camera; -1 where there is no frame.
        skew_s: greatest minus least `captured_s` [s].
        verdict: whether the loop may act on it.
        cloud: the newest point cloud of the fused view; None without one.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprio: NDArray[np.float32]
    proprio_s: float
    around: Around | None
    state: ArmState
    captured_s: Mapping[str, float]
    arrived_s: Mapping[str, float]
    uncertainty_s: Mapping[str, float]
    frame_ids: Mapping[str, int]
    skew_s: float
    verdict: Verdict
    cloud: StampedCloud | None = None

    def ages_s(self, now_s: float) -> dict[str, float]:
        """Return per camera how long ago its frame was taken [s]; NaN where there is none."""
        return {name: now_s - captured_s for name, captured_s in self.captured_s.items()}

"""The eye of one who watches a block being pushed to its goal."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.environment.push_expert import PushStyle, PushTruth, push_motion, push_truth, pushes
from robot.simulation.motion import Motion

_NEAR_M = 0.055  # a low hand that near the block's centre touches it, or is about to


class PushSight:
    """Sees block, goal and hand; stage 1 is with the hand behind the block, so that it may be pushed."""

    def __init__(self, style: PushStyle) -> None:
        self._style = style

    def look(self, state: ArmState) -> PushTruth:
        """Return the table as it is now."""
        return push_truth(state)

    def stage(self, truth: PushTruth) -> int:
        """Return 0: how far it has come is told by the distance alone."""
        return 0

    def distance_m(self, truth: PushTruth, state: ArmState) -> float:
        """Return how far the block is from its goal, and a little for how far the hand is from behind it [m]."""
        x, y, _ = state.T_base_tcp[:3, 3].tolist()
        towards = (truth.goal_m[:2] - truth.block_m[:2]) / max(truth.distance_m, 1e-6)
        behind = (truth.block_m[:2] - self._style.behind_m * towards).tolist()
        return truth.distance_m + 0.3 * math.hypot(x - behind[0], y - behind[1])

    def off_target(self, truth: PushTruth, state: ArmState, *, descending: bool) -> bool:
        """Return whether a low hand is at the block from a side that does not lead to the goal."""
        x, y, z = state.T_base_tcp[:3, 3].tolist()
        low = z < self._style.low_m + 0.02
        near = math.dist((x, y), truth.block_m[:2].tolist()) < _NEAR_M
        return low and near and not pushes(truth, state, replace(self._style, aside_m=0.014))

    def settled(self, truth: PushTruth, state: ArmState, stage: int) -> bool:
        """Return whether the hand is well behind the block, and it only has to be pushed on."""
        return pushes(truth, state, replace(self._style, aside_m=0.004))

    def motion(self, truth: PushTruth, state: ArmState, off_m: NDArray[np.float64]) -> Motion:
        """Return what they would do now, misjudging the block's place by `off_m`."""
        return push_motion(replace(truth, block_m=truth.block_m + np.array([*off_m, 0.0])), state, self._style)

"""The eye of one who watches the place task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.motion import Motion
from robot.simulation.place_expert import GRASP_Z_M, PlaceStyle, place_motion
from robot.simulation.place_task import PlaceTask, PlaceTruth

_NEAR_PAD_M = 0.06


@dataclass(frozen=True, kw_only=True)
class PlaceWorries:
    """When a descent worries them.

    Attributes:
        watch_below_m: height above grasp or place below which a descent is judged [m].
        grasp_off_m: lateral miss that worries them while descending to the block [m].
        grasp_slack: further miss that they allow per metre of remaining height.
        place_off_m: as `grasp_off_m`, over the pad [m].
        place_slack: as `grasp_slack`, over the pad.
    """

    watch_below_m: float = 0.09
    grasp_off_m: float = 0.013
    grasp_slack: float = 0.3
    place_off_m: float = 0.0085
    place_slack: float = 0.2


class PlaceSight:
    """Sees the block, the pad and the hand; stage 1 is with the block in the hand."""

    def __init__(self, task: PlaceTask, style: PlaceStyle, worries: PlaceWorries | None = None) -> None:
        self._task, self._style, self._worries = task, style, worries or PlaceWorries()

    def look(self, state: ArmState) -> PlaceTruth:
        """Return the scene as it is now."""
        return self._task.truth(state)

    def stage(self, truth: PlaceTruth) -> int:
        """Return 1 while the block is in the hand."""
        return int(truth.held)

    def distance_m(self, truth: PlaceTruth, state: ArmState) -> float:
        """Return how far the hand is from the block, or from where it lets go of it [m]."""
        pad_x, pad_y = truth.pad_xy_m.tolist()
        goal = (pad_x, pad_y, GRASP_Z_M) if truth.held else truth.block_m.tolist()
        return math.dist(state.T_base_tcp[:3, 3].tolist(), goal)

    def off_target(self, truth: PlaceTruth, state: ArmState, *, descending: bool) -> bool:
        """Return whether the hand comes down beside the block, or the block beside the pad."""
        worries = self._worries
        x, y, z = state.T_base_tcp[:3, 3].tolist()
        height_m: float = max(0.0, z - GRASP_Z_M)
        off_m = math.dist(truth.block_m[:2].tolist(), truth.pad_xy_m.tolist() if truth.held else (x, y))
        if not descending or height_m > worries.watch_below_m:
            return False
        if truth.held:
            # far from the pad it is not a placing yet: the hand settles on the block as it grasps
            return worries.place_off_m + worries.place_slack * height_m < off_m < _NEAR_PAD_M
        return state.gripper_width_m >= 0.06 and off_m > worries.grasp_off_m + worries.grasp_slack * height_m

    def settled(self, truth: PlaceTruth, state: ArmState, stage: int) -> bool:
        """Return whether the block came into the hand, or was let go of."""
        return self.stage(truth) != stage and (truth.held or state.gripper_width_m > 0.06)

    def motion(self, truth: PlaceTruth, state: ArmState, off_m: NDArray[np.float64]) -> Motion:
        """Return what they would do now, misjudging the block's place, or the pad's, by `off_m`."""
        seen = replace(
            truth,
            block_m=truth.block_m if truth.held else truth.block_m + np.array([*off_m, 0.0]),
            pad_xy_m=truth.pad_xy_m + off_m if truth.held else truth.pad_xy_m,
        )
        return place_motion(seen, state, self._style)

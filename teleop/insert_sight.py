"""The eye of one who watches the insertion task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.insert_expert import InsertStyle, insert_motion
from robot.simulation.insert_scene import RIM_M
from robot.simulation.insert_task import InsertTask, InsertTruth
from robot.simulation.motion import Motion

_ENTERED_M = 0.004  # deep enough that the walls lead the peg


@dataclass(frozen=True, kw_only=True)
class InsertWorries:
    """When a descent worries them.

    Attributes:
        watch_below_m: height of the tip above the rim below which a descent is judged [m].
        off_m: lateral miss of the tip that worries them at the rim [m].
        slack: further miss that they allow per metre of remaining height.
    """

    watch_below_m: float = 0.045
    off_m: float = 0.0055
    slack: float = 0.2


class InsertSight:
    """Sees the peg's tip and the socket; stage 1 is with the tip in the hole."""

    def __init__(self, task: InsertTask, style: InsertStyle, worries: InsertWorries | None = None) -> None:
        self._task, self._style, self._worries = task, style, worries or InsertWorries()

    def look(self, state: ArmState) -> InsertTruth:
        """Return the scene as it is now."""
        return self._task.truth(state)

    def stage(self, truth: InsertTruth) -> int:
        """Return 1 once the tip is well in the hole."""
        return int(truth.depth_m > _ENTERED_M)

    def distance_m(self, truth: InsertTruth, state: ArmState) -> float:
        """Return how far the tip is from the hole's mouth, or from where it is seated [m]."""
        x, y = truth.socket_xy_m.tolist()
        goal_z_m = RIM_M - self._style.seat_m if self.stage(truth) else RIM_M
        return math.dist(truth.tip_m.tolist(), (x, y, goal_z_m))

    def off_target(self, truth: InsertTruth, state: ArmState, *, descending: bool) -> bool:
        """Return whether the peg comes down beside the hole."""
        worries = self._worries
        height_m = max(0.0, float(truth.tip_m[2]) - RIM_M)
        if not descending or height_m > worries.watch_below_m or self.stage(truth):
            return False
        off_m = math.dist(truth.tip_m[:2].tolist(), truth.socket_xy_m.tolist())
        return off_m > worries.off_m + worries.slack * height_m

    def settled(self, truth: InsertTruth, state: ArmState, stage: int) -> bool:
        """Return whether the peg came into the hole, or out of it."""
        return self.stage(truth) != stage

    def motion(self, truth: InsertTruth, state: ArmState, off_m: NDArray[np.float64]) -> Motion:
        """Return what they would do now, misjudging the socket's place by `off_m`."""
        return insert_motion(replace(truth, socket_xy_m=truth.socket_xy_m + off_m), state, self._style)

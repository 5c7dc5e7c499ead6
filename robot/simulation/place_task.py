"""The place task: put the block on the pad, within a tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.place_scene import BLOCK_HALF_M
from robot.simulation.task import Look, TaskStatus
from robot.simulation.world import SimulatedWorld


@dataclass(frozen=True, kw_only=True)
class PlaceTruth:
    """What a person beside the arm sees; the learner never does.

    Attributes:
        block_m: centre of the block, base frame, shape (3,) [m].
        pad_xy_m: centre of the pad, shape (2,) [m].
        held: True while the block is between the fingers and off the table or gripped.
        upright: True unless the block tipped over.
        resting: True while the block lies still on the table.
    """

    block_m: NDArray[np.float64]
    pad_xy_m: NDArray[np.float64]
    held: bool
    upright: bool
    resting: bool


class PlaceTask:
    """Success: the released block rests upright with its centre within `tolerance_m` of the pad's centre.

    Failure: the block tipped over or left the table, or it was lifted and then released off the pad.
    """

    def __init__(self, world: SimulatedWorld, *, tolerance_m: float) -> None:
        self._world, self.tolerance_m = world, tolerance_m
        self._lifted = False
        self.truth = Look(world, self._look)

    def reset(self) -> None:
        """Forget the last episode; call after the table was laid."""
        self._lifted = False

    def status(self, state: ArmState) -> TaskStatus:
        """Judge the scene; call once per tick."""
        truth = self.truth(state)
        block_m = truth.block_m
        self._lifted |= bool(block_m[2] > BLOCK_HALF_M + 0.015)
        if not truth.upright or block_m[2] < -0.01:
            return TaskStatus.FAILURE
        released = state.gripper_width_m > 0.05
        if not (released and truth.resting):
            return TaskStatus.RUNNING
        if math.dist(block_m[:2].tolist(), truth.pad_xy_m.tolist()) <= self.tolerance_m:
            return TaskStatus.SUCCESS
        return TaskStatus.FAILURE if self._lifted else TaskStatus.RUNNING

    def _look(self, state: ArmState) -> PlaceTruth:
        block_m = self._world.object_position_m()
        near = math.dist(state.T_base_tcp[:3, 3].tolist(), block_m.tolist()) < 0.03
        return PlaceTruth(
            block_m=block_m,
            pad_xy_m=self._world.target_xy_m(),
            held=near and 0.030 < state.gripper_width_m < 0.046,
            upright=self._world.object_axis()[2] > 0.9,
            resting=abs(block_m[2] - BLOCK_HALF_M) < 0.003 and self._world.object_speed_m_s() < 0.02,
        )

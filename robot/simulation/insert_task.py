"""The insertion task: push the peg in the hand down into the socket."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.insert_scene import CLEARANCE_M, PEG_HALF_LENGTH_M, PEG_HALF_M, RIM_M
from robot.simulation.task import Look, TaskStatus
from robot.simulation.task_config import InsertTaskConfig
from robot.simulation.world import SimulatedWorld

_INSIDE_M = CLEARANCE_M + 0.002  # a tilted peg's tip may be this far off the middle between the walls
_STILL_M_S = 0.05
_UPRIGHT = 0.9
_DROPPED_S = 0.5  # a peg that is let go of over the hole needs as long to fall in


@dataclass(frozen=True, kw_only=True)
class InsertTruth:
    """What a person beside the arm sees; the learner never does.

    Attributes:
        tip_m: middle of the peg's lower end, base frame, shape (3,) [m].
        socket_xy_m: middle of the socket, shape (2,) [m].
        depth_m: how far the tip is below the rim inside the hole; 0 above or beside it [m].
        held: True while the peg is between the closed fingers.
        upright: True unless the peg tipped over.
        still: True while it does not move, but for the slow motion of an insertion.
    """

    tip_m: NDArray[np.float64]
    socket_xy_m: NDArray[np.float64]
    depth_m: float
    held: bool
    upright: bool
    still: bool


class InsertTask:
    """Success: the tip is `depth_m` below the rim, and the peg stands still or is held still.

    Failure: the peg was dropped or tipped over, or it was jammed: pressed against socket or table with more than
    `jam_force_n` for `jam_s`, or once with more than `crash_force_n`. A shorter press is forgotten as slowly as it
    came, for a jammed peg slips and grips.
    """

    def __init__(self, world: SimulatedWorld, config: InsertTaskConfig) -> None:
        self._world, self.config = world, config
        self.truth = Look(world, self._look)
        self.reset()

    def reset(self) -> None:
        """Forget the last episode; call after the table was laid."""
        self._held_s: float | None = None  # when it was held last
        self._pressed_s = 0.0  # for how long it has been pressed, less the time without
        self._judged_s: float | None = None

    def status(self, state: ArmState) -> TaskStatus:
        """Judge the scene; call once per tick."""
        truth, now_s = self.truth(state), state.measured_s
        if truth.held or self._held_s is None:
            self._held_s = now_s
        since_s = 0.0 if self._judged_s is None else now_s - self._judged_s
        self._judged_s = now_s
        force_n = state.force_n or 0.0
        pressed = force_n > self.config.jam_force_n
        self._pressed_s = self._pressed_s + since_s if pressed else max(0.0, self._pressed_s - since_s)
        if truth.upright and truth.still and truth.depth_m >= self.config.depth_m:
            return TaskStatus.SUCCESS
        dropped = now_s - self._held_s > _DROPPED_S or truth.tip_m[2] < -0.01
        jammed = self._pressed_s > self.config.jam_s or force_n > self.config.crash_force_n
        if not truth.upright or dropped or jammed:
            return TaskStatus.FAILURE
        return TaskStatus.RUNNING

    def _look(self, state: ArmState) -> InsertTruth:
        centre_m, axis = self._world.object_position_m(), self._world.object_axis()
        tip_m = centre_m - PEG_HALF_LENGTH_M * np.array(axis)
        socket_xy_m = self._world.target_xy_m()
        x, y, z = tip_m.tolist()
        inside = max(abs(x - float(socket_xy_m[0])), abs(y - float(socket_xy_m[1]))) <= _INSIDE_M
        near = math.dist(state.T_base_tcp[:3, 3].tolist(), centre_m.tolist()) < 0.6 * 2.0 * PEG_HALF_LENGTH_M
        return InsertTruth(
            tip_m=tip_m,
            socket_xy_m=socket_xy_m,
            depth_m=max(0.0, RIM_M - z) if inside else 0.0,
            held=near and abs(state.gripper_width_m - 2.0 * PEG_HALF_M) < 0.005,
            upright=axis[2] > _UPRIGHT,
            still=self._world.object_speed_m_s() < _STILL_M_S,
        )

"""The scripted expert of pushing tasks: memoryless, from where block and goal are to a motion of the closed hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.errors import BadInputError
from robot.simulation.motion import Motion

Array = NDArray[np.float64]
OBJECT, GOAL = "object_position_m", "goal_position_m"  # readings that it looks at, base frame [m]


@dataclass(frozen=True, kw_only=True)
class PushTruth:
    """The table as it is now, base frame.

    Attributes:
        block_m: centre of the block, (3,) [m].
        goal_m: where its centre is to be, (3,) [m].
    """

    block_m: Array
    goal_m: Array

    @property
    def distance_m(self) -> float:
        """How far the block is from its goal, on the table [m]."""
        return math.dist(self.block_m[:2].tolist(), self.goal_m[:2].tolist())


@dataclass(frozen=True, kw_only=True)
class PushStyle:
    """How the expert moves.

    Attributes:
        behind_m: how far behind the block's centre it comes down [m].
        aside_m: how far off the line through block and goal it still pushes [m].
        low_m: height at which it pushes [m].
        high_m: height at which it passes over the block [m].
        step_m: greatest step of a tick on the way [m].
        push_m: greatest step of a tick while it pushes [m].
    """

    behind_m: float = 0.055
    aside_m: float = 0.012
    low_m: float = 0.018
    high_m: float = 0.075
    step_m: float = 0.015
    push_m: float = 0.01


def push_truth(state: ArmState) -> PushTruth:
    """Return the table as the arm's readings have it. Raises BadInputError where they do not."""
    try:
        return PushTruth(block_m=state.readings[OBJECT], goal_m=state.readings[GOAL])
    except KeyError as error:
        raise BadInputError(
            f"arm.state.readings has no {error}, which arm.expert 'push' looks at (needed {OBJECT} and {GOAL}); name "
            "where they are, or set arm.expert to 'none'"
        ) from None


def pushes(truth: PushTruth, state: ArmState, style: PushStyle) -> bool:
    """Return whether the hand is down behind the block, so that to go on means to push it to its goal."""
    along_m, aside_m = _place(truth, state)
    return along_m < 0.0 and abs(aside_m) < 2.0 * style.aside_m and float(state.T_base_tcp[2, 3]) < style.low_m + 0.015


def push_motion(truth: PushTruth, state: ArmState, style: PushStyle) -> Motion:
    """Return what the expert does now: over the block, down behind it, push along the line to the goal."""
    tcp_m = state.T_base_tcp[:3, 3]
    towards, sideways = _axes(truth)
    _, aside_m = _place(truth, state)
    if pushes(truth, state, style):
        # back to the line first: a push from beside it turns the block
        forward_m = style.push_m * max(0.0, 1.0 - abs(aside_m) / (2.0 * style.aside_m))
        forward_m = min(forward_m, 0.3 * truth.distance_m + 0.003)
        lateral_m = -0.5 * aside_m
        delta = forward_m * towards + lateral_m * sideways
        return Motion(delta_m=np.array([*delta, _clip(style.low_m - tcp_m[2], style.step_m)]), gripper=-1.0)
    goal = truth.block_m[:2] - style.behind_m * towards
    way = goal - tcp_m[:2]
    distance_m = float(np.linalg.norm(way))
    step = way * min(1.0, style.step_m / max(distance_m, 1e-9), 1.0)
    there = distance_m < 0.6 * style.aside_m
    beside = math.dist(truth.block_m[:2].tolist(), tcp_m[:2].tolist()) > 0.05 and distance_m < 0.02
    height_m = style.low_m if there or beside else style.high_m
    up_m = _clip(height_m - tcp_m[2], style.step_m)
    if not there and tcp_m[2] < style.high_m - 0.03 and not beside:
        step = step * 0.0  # rise before going over the block
    return Motion(delta_m=np.array([*step, up_m]), gripper=-1.0)


def _axes(truth: PushTruth) -> tuple[Array, Array]:
    """Unit vectors on the table: from the block to its goal, and to the left of that."""
    way = truth.goal_m[:2] - truth.block_m[:2]
    towards = way / max(float(np.linalg.norm(way)), 1e-6)
    return towards, np.array([-towards[1], towards[0]])


def _place(truth: PushTruth, state: ArmState) -> tuple[float, float]:
    """Where the hand is as seen from the block: along the way to the goal, and aside of it [m]."""
    towards, sideways = _axes(truth)
    off = state.T_base_tcp[:2, 3] - truth.block_m[:2]
    return float(off @ towards), float(off @ sideways)


def _clip(value: float, greatest: float) -> float:
    return min(max(value, -greatest), greatest)

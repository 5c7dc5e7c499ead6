"""The scripted expert of the insertion task: memoryless, from the scene's truth to a TCP motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot.arm_state import ArmState
from robot.simulation.insert_scene import RIM_M
from robot.simulation.insert_task import InsertTruth
from robot.simulation.motion import Motion


@dataclass(frozen=True, kw_only=True)
class InsertStyle:
    """How the expert moves; steps are per tick.

    Attributes:
        gain: share of the lateral error closed per tick.
        inside_gain: the same once the tip is in the hole, whose walls lead it.
        lateral_step_m: greatest lateral step [m].
        hover_m: height of the tip above the rim that it keeps while it is far off [m].
        ready_m: lateral error inside which it descends all the way [m].
        funnel: height that it keeps per metre of lateral error beyond that.
        down_step_m: greatest descent [m].
        approach_gain: share of the height above the rim that it descends per tick.
        approach_step_m: the least of that [m]; slow enough that a person can react before the peg stands on the rim.
        insert_gain: share of the way to `seat_m` that it descends per tick inside the hole.
        insert_step_m: the greatest of that [m].
        seat_m: depth at which it stops pushing [m].
        up_step_m: greatest rise [m]; gentle, so that a correction can outweigh it.
    """

    gain: float = 0.25
    inside_gain: float = 0.1
    lateral_step_m: float = 0.015
    hover_m: float = 0.06
    ready_m: float = 0.003
    funnel: float = 4.0
    down_step_m: float = 0.005
    approach_gain: float = 0.07
    approach_step_m: float = 0.0012
    insert_gain: float = 0.3
    insert_step_m: float = 0.003
    seat_m: float = 0.027
    up_step_m: float = 0.004


def insert_motion(truth: InsertTruth, state: ArmState, style: InsertStyle) -> Motion:
    """Return what the expert does now: bring the tip over the hole, descend slowly, push it in.

    It descends through a funnel: the permitted height grows with the lateral error, so that the motion is a
    continuous function of the scene (which a behaviour-cloned policy can copy). Below the rim it goes on descending
    and gives way sideways.
    """
    error_m = truth.socket_xy_m - truth.tip_m[:2]
    distance_m = float(np.linalg.norm(error_m))
    above_m = float(truth.tip_m[2]) - RIM_M
    if truth.depth_m > 0.0:
        x, y = style.inside_gain * error_m
        down_m = float(np.clip(style.insert_gain * (style.seat_m - truth.depth_m), 0.0, style.insert_step_m))
        return Motion(delta_m=np.array([x, y, -down_m]), gripper=-1.0)
    step_m = min(style.lateral_step_m, style.gain * distance_m)
    lateral_m = error_m / max(distance_m, 1e-9) * step_m
    kept_m = min(style.hover_m, style.funnel * max(0.0, distance_m - style.ready_m))
    # it presses on gently where the tip already touches: the chamfer leads it in
    fall_m = float(np.clip(style.approach_gain * above_m, style.approach_step_m, style.down_step_m))
    goal_m = kept_m if kept_m > 0.0 else -1.0
    return Motion(
        delta_m=np.array([lateral_m[0], lateral_m[1], float(np.clip(goal_m - above_m, -fall_m, style.up_step_m))]),
        gripper=-1.0,
    )

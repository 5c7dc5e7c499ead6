"""The scripted expert of the place task: memoryless, from the scene's truth to a TCP motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot.arm_state import ArmState
from robot.simulation.motion import Motion
from robot.simulation.place_task import PlaceTruth

GRASP_Z_M = 0.02
HOVER_M = 0.08  # above the grasp or place height
CAPTURE_M = 0.005  # lateral error inside which it descends all the way
FUNNEL = 4.0  # height that it keeps per metre of lateral error beyond that


@dataclass(frozen=True, kw_only=True)
class PlaceStyle:
    """How the expert moves; steps are per tick.

    Attributes:
        gain: share of the lateral error closed per tick.
        lateral_step_m: greatest lateral step [m].
        down_step_m: greatest descent [m].
        place_gain: share of the remaining height that it descends per tick with a block in the hand.
        place_step_m: the least of that [m]; slow enough that a person can react before the hand opens.
        up_step_m: greatest rise [m].
        correct_up_step_m: greatest rise to put a descent right [m]; gentle, so that a correction can outweigh it.
        ready_m: lateral error up to which it closes or opens once it is down [m]; the descent has done the aiming.
    """

    gain: float = 0.25
    lateral_step_m: float = 0.015
    down_step_m: float = 0.005
    place_gain: float = 0.09
    place_step_m: float = 0.0015
    up_step_m: float = 0.012
    correct_up_step_m: float = 0.004
    ready_m: float = 0.016


def place_motion(truth: PlaceTruth, state: ArmState, style: PlaceStyle) -> Motion:
    """Return what the expert does now: approach, grasp, carry, place, retreat.

    It descends through a funnel: the permitted height grows with the lateral error, so that the motion is a
    continuous function of the scene (which a behaviour-cloned policy can copy).
    """
    tcp_m = state.T_base_tcp[:3, 3]
    width_m = state.gripper_width_m
    if not truth.held and width_m < 0.030:  # closed on nothing: open and rise
        return Motion(delta_m=np.array([0.0, 0.0, style.up_step_m]), gripper=1.0)
    on_pad = float(np.linalg.norm(truth.block_m[:2] - truth.pad_xy_m)) < 0.012
    if not truth.held and on_pad:  # released: retreat straight up
        up = np.clip(0.14 - tcp_m[2], 0.0, style.up_step_m)
        return Motion(delta_m=np.array([0.0, 0.0, up]), gripper=1.0)
    # Held: bring the block, not the hand, over the pad.
    error_m = truth.pad_xy_m - truth.block_m[:2] if truth.held else truth.block_m[:2] - tcp_m[:2]
    distance_m = float(np.linalg.norm(error_m))
    height_m = GRASP_Z_M + min(HOVER_M, FUNNEL * max(0.0, distance_m - CAPTURE_M))
    step_m = min(style.lateral_step_m, style.gain * distance_m)
    near = distance_m < 0.04
    if truth.held and not near:  # lift off before leaving
        step_m *= float(np.clip((tcp_m[2] - GRASP_Z_M - 0.004) / 0.04, 0.0, 1.0))
    lateral_m = error_m / max(distance_m, 1e-9) * step_m
    up_m = style.correct_up_step_m if near else style.up_step_m
    fall_m = style.down_step_m
    if truth.held:
        fall_m = float(np.clip(style.place_gain * (tcp_m[2] - GRASP_Z_M), style.place_step_m, style.down_step_m))
    down_m = float(np.clip(height_m - tcp_m[2], -fall_m, up_m))
    if truth.held:
        gripper = 1.0 if tcp_m[2] < GRASP_Z_M + 0.004 and distance_m < style.ready_m else -1.0
    else:
        gripper = -1.0 if tcp_m[2] < GRASP_Z_M + 0.006 and distance_m < style.ready_m else 1.0
    return Motion(delta_m=np.array([lateral_m[0], lateral_m[1], down_m]), gripper=gripper)

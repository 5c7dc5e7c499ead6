"""What a command asks for, as one step from the pose commanded last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Reason
from robot.filter_state import FilterState
from robot.geometry import matrix_to_rotvec, rotvec_to_matrix
from robot.kinematics import Kinematics
from robot.stopping import Vector

Array = NDArray[np.float64]

# [m or rad]; no target and no measured pose of a table-top arm is near it, and beyond it sums would overflow
GREATEST_NUMBER = 1e3

_TCP_DELTA = CommandKind.TCP_DELTA  # to look up a member of an enum takes 0.1 us
_OF_JOINTS = (CommandKind.JOINT_DELTA, CommandKind.JOINT_POSITION)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A command, before any limit.

    Attributes:
        translation: from the position commanded last to the target [m].
        rotation: rotation vector from the orientation commanded last to the target, base frame [rad].
        q_rad: joints to end in, shape (N,) [rad]; None for a command of the TCP.
        stops: True when the target is a place to stop at, False when it is the step of one tick.
    """

    translation: Vector
    rotation: Vector
    q_rad: Array | None
    stops: bool


def read_wish(
    state: FilterState, arm_state: ArmState, command: Command, kinematics: Kinematics | None
) -> Wish | Reason:
    """Return what `command` asks for, or why it cannot be read; the measured pose must be readable, too."""
    target, kind = command.target, command.kind
    of_joints = kind in _OF_JOINTS
    if kind is CommandKind.ACTUATION or (of_joints and kinematics is None):
        return Reason.NO_SOLUTION  # where an actuation leads, nobody can say; `ActuationFilter` is for those
    shape = state.q_rad.shape if of_joints else (6,)
    if not isinstance(target, np.ndarray) or target.shape != shape or target.dtype.kind not in "fiu":
        return Reason.WRONG_SHAPE
    if arm_state.T_base_tcp.shape != (4, 4):
        return Reason.WRONG_SHAPE
    target = target.astype(np.float64)
    wanted = target.tolist()
    numbers = wanted + arm_state.T_base_tcp.ravel().tolist()
    # the sum finds what is not a number, which a maximum may pass over
    if not math.isfinite(sum(numbers)) or max(map(abs, numbers)) > GREATEST_NUMBER:
        return Reason.NOT_FINITE
    if not math.isfinite(command.gripper_width_m) or not math.isfinite(command.due_s):
        return Reason.NOT_FINITE
    if kind is _TCP_DELTA:
        x, y, z, rx, ry, rz = wanted
        return Wish(translation=(x, y, z), rotation=(rx, ry, rz), q_rad=None, stops=False)
    q_rad: Array | None = None
    if kind is CommandKind.TCP_POSE:
        p_target, R_target = target[:3], rotvec_to_matrix(target[3:])
    else:
        assert kinematics is not None
        q_rad = state.q_rad + target if kind is CommandKind.JOINT_DELTA else target
        T_target = kinematics.forward(q_rad)
        p_target, R_target = T_target[:3, 3], T_target[:3, :3]
    x, y, z = (p_target - state.T_base_tcp[:3, 3]).tolist()
    rx, ry, rz = matrix_to_rotvec(R_target @ state.T_base_tcp[:3, :3].T).tolist()
    stops = kind is not CommandKind.JOINT_DELTA
    return Wish(translation=(x, y, z), rotation=(rx, ry, rz), q_rad=q_rad, stops=stops)

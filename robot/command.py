"""Timed targets for the arm, before and after the safety filter."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class CommandKind(enum.Enum):
    """How `Command.target` is read."""

    TCP_DELTA = "tcp_delta"  # (6,) translation [m] and rotation vector [rad] of one tick, base frame
    TCP_POSE = "tcp_pose"  # (6,) position [m] and rotation vector [rad] in the base frame
    JOINT_DELTA = "joint_delta"  # (N,) [rad] of one tick
    JOINT_POSITION = "joint_position"  # (N,) [rad]
    ACTUATION = "actuation"  # (N,) shares of what each actuator can give, -1 to 1: no motion that anybody could check


class Reason(enum.IntFlag):
    """Why the safety filter changed, refused or stopped a command; stored as a bit mask per tick."""

    NONE = 0
    NOT_FINITE = 1 << 0  # rejected
    WRONG_SHAPE = 1 << 1  # rejected
    WORKSPACE = 1 << 2  # clamped to the box
    TRANSLATION_STEP = 1 << 3  # clamped to the greatest translation of one tick
    ROTATION_STEP = 1 << 4  # clamped to the greatest rotation of one tick
    ACCELERATION = 1 << 5  # change of velocity clamped
    TRACKING = 1 << 6  # target kept near the measured pose
    JOINT_LIMIT = 1 << 7  # rejected: joint solution inside the margin of a joint limit
    JOINT_SPEED = 1 << 8  # slowed down: joint solution too fast
    NO_SOLUTION = 1 << 9  # rejected: no joint solution near the last one
    GRIPPER = 1 << 10  # gripper width clamped
    FORCE = 1 << 11  # stop, latched
    ARM_FAULT = 1 << 12  # stop, latched
    FAULTED = 1 << 13  # filter is latched; only the person's arm verb clears it
    TILT = 1 << 14  # clamped to the greatest tilt from the home orientation
    ACTUATION = 1 << 15  # an actuator's share clamped to its range or its greatest change in one tick


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the arbiter asks of the arm for one tick.

    Attributes:
        kind: how `target` is read.
        target: SI target, shape (6,) or (N,), see `CommandKind`.
        gripper_width_m: wanted distance between the fingers [m].
        due_s: when the target is to be reached, host monotonic clock [s].
    """

    kind: CommandKind
    target: Array
    gripper_width_m: float
    due_s: float


@dataclass(frozen=True, kw_only=True)
class SafeCommand:
    """A target that passed the safety filter: the only thing an arm accepts.

    Built by the safety filters alone (they hold the token); an arm refuses any other object.

    Attributes:
        T_base_tcp: target pose, shape (4, 4) [m].
        q_rad: joint solution of that pose, shape (N,) [rad]; empty for an arm without joints, shares -1 to 1 for one
            that is driven by actuation.
        gripper_width_m: target distance between the fingers [m].
        due_s: when the target is to be reached [s].
        reasons: what the filter changed.
    """

    T_base_tcp: Array
    q_rad: Array
    gripper_width_m: float
    due_s: float
    reasons: Reason

    _TOKEN: ClassVar[object] = object()
    token: object = None

    def __post_init__(self) -> None:
        if self.token is not SafeCommand._TOKEN:
            raise TypeError("a SafeCommand is made by robot.safety.step only; send a Command through it")


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The filter refused: the arm keeps its last safe target.

    Attributes:
        reasons: why.
        latched: True when only the person's arm verb ends the hold.
    """

    reasons: Reason
    latched: bool

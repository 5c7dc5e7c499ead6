"""The interface of an arm that takes a stream: read where it is, write where it is to be now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from robot.arm_state import ArmState

Joints = tuple[float, ...]  # plain floats: for seven joints several times faster than arrays


@dataclass(frozen=True, kw_only=True)
class SetPoint:
    """Where the joints are to be at one instant, and how they move there.

    Attributes:
        time_s: the instant, host monotonic clock [s].
        q_rad: positions, N values [rad].
        dq_rad_s: velocities [rad/s]; the arm's controller needs them to know a stream from a jump.
        ddq_rad_s2: accelerations [rad/s^2].
        gripper_width_m: width wanted now; the gripper has its own speed [m].
        clears: counts up when a person clears the arm's fault.
        resting: no target is followed, the joints brake or stand. A gripper that could not begin to go to its width yet
            does not begin any more.
    """

    time_s: float
    q_rad: Joints
    dq_rad_s: Joints
    ddq_rad_s2: Joints
    gripper_width_m: float
    clears: int
    resting: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the arm's own controller says.

    Attributes:
        arm: measured state.
        following: True while the controller follows the stream. Otherwise it stands or brakes by itself, and follows
            again once the stream begins at rest where the controller stands.
        q_set_rad: set-point that the controller has in force, its own or the stream's, N values [rad].
        gripper_set_m: width in force [m].
        clears: the `SetPoint.clears` that it has heeded.
    """

    arm: ArmState
    following: bool
    q_set_rad: Joints
    gripper_set_m: float
    clears: int


class JointStream(Protocol):
    """The servo's end of such an arm. Neither call ever blocks."""

    def read(self) -> Reading | None:
        """Return the newest reading, None before there is one."""
        ...

    def write(self, point: SetPoint) -> None:
        """Stream the next set-point."""
        ...

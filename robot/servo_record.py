"""What the servo process publishes at each step: the arm's state, and how the servo does."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robot.arm_ring import ArmRecord
from robot.arm_state import ArmState
from robot.joint_stream import Joints, SetPoint
from robot.servo import Cause, ServoMode
from robot.shared_ring import SharedRing


@dataclass(frozen=True, kw_only=True)
class ServoStatus:
    """How the servo does at one of its steps.

    Attributes:
        time_s: the step's time [s].
        mode: what it does.
        cause: why it does not follow.
        target_age_s: age of the newest target, infinite before the first [s].
        tracking_rad: greatest distance of a joint from its set-point [rad].
        late_s: how late this step began [s].
        worst_late_s: the latest one since the process began [s].
        missed: steps left out since then because one before them took too long.
        refused: targets refused since then.
        clears: how often a person has cleared a fault.
    """

    time_s: float
    mode: ServoMode
    cause: Cause
    target_age_s: float
    tracking_rad: float
    late_s: float
    worst_late_s: float
    missed: int
    refused: int
    clears: int


@dataclass(frozen=True, kw_only=True)
class ServoStep:
    """One record: the arm with the servo's fault on it, the status, and the set-point that was streamed."""

    arm: ArmState
    status: ServoStatus
    q_rad: Joints
    dq_rad_s: Joints
    ddq_rad_s2: Joints


class ServoRecord:
    """Layout of such records for an arm with so many joints.

    Attributes:
        size: bytes of a record.
    """

    def __init__(self, joints: int) -> None:
        self._joints = joints
        self._layout = struct.Struct(f"=dBBddddQQQ{3 * joints}d")
        self.arm = ArmRecord(joints)
        self.size = self._layout.size + self.arm.size

    def new_ring(self, slots: int = 512) -> SharedRing:
        """Make the ring that the servo process writes; 512 steps are two seconds at 250 Hz."""
        return SharedRing.new(slots=slots, record_bytes=self.size)

    def pack(self, arm: ArmState, status: ServoStatus, point: SetPoint) -> bytes:
        """Return the record of a step."""
        s = status
        head = self._layout.pack(
            s.time_s, s.mode, s.cause, s.target_age_s, s.tracking_rad, s.late_s, s.worst_late_s,
            s.missed, s.refused, s.clears, *point.q_rad, *point.dq_rad_s, *point.ddq_rad_s2,
        )  # fmt: skip
        return head + self.arm.pack(arm)

    def unpack(self, record: bytes | bytearray) -> ServoStep:
        """Return the step of a record."""
        time_s, mode, cause, age_s, tracking, late_s, worst_s, missed, refused, clears, *joints = (
            self._layout.unpack_from(record)
        )
        n = self._joints
        status = ServoStatus(
            time_s=time_s,
            mode=ServoMode(mode),
            cause=Cause(cause),
            target_age_s=age_s,
            tracking_rad=tracking,
            late_s=late_s,
            worst_late_s=worst_s,
            missed=missed,
            refused=refused,
            clears=clears,
        )
        return ServoStep(
            arm=self.arm.unpack(record, self._layout.size),
            status=status,
            q_rad=tuple(joints[:n]),
            dq_rad_s=tuple(joints[n : 2 * n]),
            ddq_rad_s2=tuple(joints[2 * n :]),
        )

"""An arm's state as a record of shared memory."""

from __future__ import annotations

import math
import struct

import numpy as np

from robot.arm_state import ArmState

_FAULT_BYTES = 200
_NO_WRENCH = (math.nan,) * 6


class ArmRecord:
    """Layout of the states of an arm with so many joints. The same floats come out, bit for bit.

    Attributes:
        size: bytes of a record.
    """

    def __init__(self, joints: int) -> None:
        # time, joints, their velocities, pose, velocity of the TCP, wrench, gripper, force; whether the two are there
        self._layout = struct.Struct(f"=d{joints}d{joints}d16d6d6ddd??H{_FAULT_BYTES}s")
        self._joints = joints
        self.size = self._layout.size

    def pack(self, state: ArmState) -> bytes:
        """Return the record of a state; a fault's text longer than 200 bytes is cut."""
        fault = (state.fault or "").encode()[:_FAULT_BYTES]
        return self._layout.pack(
            state.measured_s,
            *state.q_rad.tolist(),
            *state.dq_rad_s.tolist(),
            *state.T_base_tcp.ravel().tolist(),
            *state.tcp_velocity.tolist(),
            *(_NO_WRENCH if state.wrench is None else state.wrench.tolist()),
            state.gripper_width_m,
            math.nan if state.force_n is None else state.force_n,
            state.wrench is not None,
            state.force_n is not None,
            # an empty text is a fault, too
            0 if state.fault is None else 1 + len(fault),
            fault,
        )

    def unpack(self, record: bytes | bytearray | memoryview, offset: int = 0) -> ArmState:
        """Return the state of a record that `pack` made, with read-only arrays of its own."""
        fields = self._layout.unpack_from(record, offset)
        n = self._joints
        numbers = np.array(fields[1 : 2 * n + 29])
        numbers.setflags(write=False)
        width_m, force_n, has_wrench, has_force, fault_size, fault = fields[2 * n + 29 :]
        return ArmState(
            measured_s=fields[0],
            q_rad=numbers[:n],
            dq_rad_s=numbers[n : 2 * n],
            T_base_tcp=numbers[2 * n : 2 * n + 16].reshape(4, 4),
            tcp_velocity=numbers[2 * n + 16 : 2 * n + 22],
            gripper_width_m=width_m,
            force_n=force_n if has_force else None,
            fault=fault[: fault_size - 1].decode(errors="replace") if fault_size else None,
            wrench=numbers[2 * n + 22 :] if has_wrench else None,
        )

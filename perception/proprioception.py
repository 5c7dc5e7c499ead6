"""The proprioception keys that a bundle may ask for, and how each is made from the arm's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.geometry import matrix_to_quat_wxyz


def _quat_xyzw(state: ArmState) -> NDArray[np.float64]:
    w, x, y, z = matrix_to_quat_wxyz(state.T_base_tcp[:3, :3])
    return np.array((x, y, z, w))


# Each key: size (None = the arm's joint count) and the values in SI units.
KEYS: dict[str, tuple[int | None, Callable[[ArmState], NDArray[np.float64]]]] = {
    "tcp_position_m": (3, lambda state: state.T_base_tcp[:3, 3]),
    "tcp_quat_xyzw": (4, _quat_xyzw),
    "tcp_velocity": (6, lambda state: state.tcp_velocity),
    "gripper_width_m": (1, lambda state: np.array([state.gripper_width_m])),
    "joint_position_rad": (None, lambda state: state.q_rad),
    "joint_velocity_rad_s": (None, lambda state: state.dq_rad_s),
}


def proprioception(state: ArmState, keys: Sequence[str]) -> NDArray[np.float32]:
    """Return the values of `keys` one after another, shape (P,), float32; what is none of `KEYS` is a reading."""
    if not keys:
        return np.zeros(0, np.float32)
    values = [KEYS[key][1](state) if key in KEYS else state.readings[key] for key in keys]
    return np.concatenate(values).astype(np.float32)


def key_sizes(joint_count: int, readings: Mapping[str, int]) -> dict[str, int]:
    """Return how many numbers each key has for an arm with these joints and readings (name -> size)."""
    known = {key: joint_count if size is None else size for key, (size, _) in KEYS.items()}
    return known | dict(readings)

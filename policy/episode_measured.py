"""What the arm did after each row, from the state that the next row begins with."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from policy.action_space import ActionSpace
from policy.episode_header import EpisodeHeader


def measured(demo: h5py.Group, header: EpisodeHeader, index: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Return the `measured` datasets, each one row shorter than the episode.

    Row t is the state at the start of tick t + 1, and the move from the state at the start of tick t as an
    action (A,). Where the next tick was skipped or not recorded, or a pose is not known, the row is NaN.
    """
    count = max(0, len(index) - 1)
    T_base_tcp: NDArray[np.float64] = demo["tick/T_base_tcp"][:]
    q_rad: NDArray[np.float64] = demo["tick/q_rad"][:] if "q_rad" in demo["tick"] else np.zeros((len(index), 0))
    width_m: NDArray[np.float64] = demo["tick/gripper_width_m"][:]
    T_after, q_after, width_after_m = T_base_tcp[1:].copy(), q_rad[1:].copy(), width_m[1:].copy()
    action = np.full((count, header.spec.action_size), np.nan, np.float32)
    rotations = T_base_tcp[:, :3, :3].copy()
    rotations[~np.isfinite(T_base_tcp).all(axis=(1, 2))] = 0.0
    known: list[bool] = (np.linalg.det(rotations) > 0.5).tolist()
    space = ActionSpace(header.action)
    for t in range(count):
        if index[t + 1] != index[t] + 1:
            T_after[t], q_after[t], width_after_m[t] = np.nan, np.nan, np.nan
        elif known[t] and known[t + 1]:
            action[t] = space.executed(T_base_tcp[t], T_after[t], q_rad[t], q_after[t], float(width_after_m[t]))
    values: dict[str, NDArray[np.generic]] = {
        "tick/measured_T": T_after,
        "tick/measured_gripper_m": width_after_m,
        "tick/measured": action,
    }
    if header.spec.joint_count:
        values["tick/measured_q"] = q_after
    return values

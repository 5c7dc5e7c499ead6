"""The way home between two episodes, one bounded action a tick, through the same safety filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.action_space import ActionSpace
from policy.manifest import TCP_DIMS
from robot.arm_state import ArmState
from robot.filter_state import FilterState
from robot.geometry import matrix_to_rotvec

Array = NDArray[np.float64]
_OPEN_BELOW_M = 0.070
_ARRIVED_M = 0.004
_ARRIVED_RAD = 0.03
_CLEARANCE_M = 0.06  # rises so far before it moves sideways
_APPROACH = 0.5  # share of the remaining way that one tick takes


class Homing:
    """Opens the gripper or closes it, rises, then moves over the table to the home pose.

    Args:
        actions: action space of the bundle (TCP deltas in the base frame).
        T_base_home: home pose, (4, 4) [m].
        gripper_open_m: width of the open gripper [m].
        closed: where the hand is closed at home; then it may be closed on anything, and lets go of nothing.
    """

    def __init__(
        self, actions: ActionSpace, T_base_home: Array, *, gripper_open_m: float, closed: bool = False
    ) -> None:
        self._closed = closed
        self._actions, self._T_base_home = actions, T_base_home
        self._open_m = gripper_open_m
        spec = actions.spec
        self._scale = dict(zip(spec.dims, spec.scale, strict=True))

    def done(self, state: ArmState) -> bool:
        """True when the measured arm is at home with the gripper as it should be there."""
        off_m, off_rad = self._off(state)
        return off_m < _ARRIVED_M and off_rad < _ARRIVED_RAD and self._opened(state)

    def remaining(self, state: ArmState) -> str:
        """What the measured arm still lacks, in words for the person."""
        off_m, off_rad = self._off(state)
        gripper = "" if self._opened(state) else f", gripper open {1e3 * state.gripper_width_m:.0f} mm only"
        return f"{1e3 * off_m:.0f} mm and {np.degrees(off_rad):.0f} degrees from home{gripper}"

    def action(self, state: ArmState, commanded: FilterState) -> NDArray[np.float32]:
        """Return the action (A,) of this tick, from the pose commanded last towards home."""
        way = np.zeros(6)
        way[:3] = self._T_base_home[:3, 3] - commanded.T_base_tcp[:3, 3]
        way[3:] = matrix_to_rotvec(self._T_base_home[:3, :3] @ commanded.T_base_tcp[:3, :3].T)
        if not self._opened(state):
            way[:] = 0.0  # let go before leaving
        elif way[2] > _CLEARANCE_M:
            way[:2] = 0.0
        twist = np.zeros(6)
        for slot, name in enumerate(TCP_DIMS):
            if name in self._scale:
                twist[slot] = np.clip(way[slot] * _APPROACH / self._scale[name], -1.0, 1.0)
        gripper = -1.0 if self._closed else 1.0
        return self._actions.from_human(
            twist, gripper, T_base_target=commanded.T_base_tcp, gripper_width_m=commanded.gripper_width_m
        )

    def _off(self, state: ArmState) -> tuple[float, float]:
        """How far the measured pose is from home [m, rad]."""
        turn = matrix_to_rotvec(self._T_base_home[:3, :3] @ state.T_base_tcp[:3, :3].T)
        return float(np.linalg.norm(state.T_base_tcp[:3, 3] - self._T_base_home[:3, 3])), float(np.linalg.norm(turn))

    def _opened(self, state: ArmState) -> bool:
        return self._closed or state.gripper_width_m > min(_OPEN_BELOW_M, self._open_m - 0.005)

"""Between normalised actions and timed SI commands."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policy.manifest import TCP_DIMS, ActionSpec
from robot.command import Command, CommandKind
from robot.geometry import matrix_to_rotvec, pose_error

Action = NDArray[np.float32]
Array = NDArray[np.float64]


class ActionSpace:
    """Maps actions (A,) in [-1, 1] to commands and back, as the bundle's manifest says."""

    def __init__(self, spec: ActionSpec) -> None:
        self.spec = spec
        self._scale = np.array(spec.scale)
        self._offset = np.array(spec.offset)
        self._motion = np.array([name != "gripper" for name in spec.dims])
        self._moving = np.flatnonzero(self._motion)
        self._motion_scale, self._motion_offset = self._scale[self._moving], self._offset[self._moving]
        self._centred = -(self._motion_offset / self._motion_scale)  # the action of no motion
        self._gripper = spec.dims.index("gripper") if "gripper" in spec.dims else None
        self._tcp = spec.kind in (CommandKind.TCP_DELTA, CommandKind.TCP_POSE)
        # position of each motion dimension in the (6,) target, or in the joints' order
        self._slots = (
            np.array([TCP_DIMS.index(name) for name in spec.dims if name != "gripper"], dtype=int)
            if self._tcp
            else np.arange(int(self._motion.sum()))
        )

    @property
    def size(self) -> int:
        """Number of dimensions A."""
        return self.spec.size

    @property
    def motion(self) -> NDArray[np.bool_]:
        """Mask (A,) of the dimensions that move the arm (all but the gripper)."""
        return self._motion

    def command(self, action: Action, *, T_base_target: Array, gripper_width_m: float, due_s: float) -> Command:
        """Return the command for `action`.

        Args:
            action: normalised, shape (A,); not clipped here, the safety filter judges it.
            T_base_target: pose commanded last, (4, 4) [m]; turns a TCP-frame delta into the base frame.
            gripper_width_m: width commanded last, kept where the action has no gripper [m].
            due_s: when the target is to be reached [s].
        """
        si = action.astype(np.float64) * self._scale + self._offset
        target = si[self._moving]
        if self._tcp:
            full = np.zeros(6)
            full[self._slots] = target
            if self.spec.kind is CommandKind.TCP_DELTA and self.spec.frame == "tcp":
                R_base_tcp = T_base_target[:3, :3]
                full = np.concatenate([R_base_tcp @ full[:3], R_base_tcp @ full[3:]])
            target = full
        width = gripper_width_m if self._gripper is None else self._width(float(action[self._gripper]))
        return Command(kind=self.spec.kind, target=target, gripper_width_m=width, due_s=due_s)

    def from_human(
        self, twist: Array, gripper: float | None, *, T_base_target: Array, gripper_width_m: float
    ) -> Action:
        """Return the action (A,) for a person's base-frame twist (6,) in [-1, 1] and gripper wish.

        Full deflection is full scale of each dimension, a centred stick is no motion whatever the offset. `gripper`
        None keeps `gripper_width_m`.
        """
        if self.spec.kind is not CommandKind.TCP_DELTA:
            raise ValueError(f"a person drives TCP deltas; this bundle's actions are {self.spec.kind.value}")
        action = np.zeros(self.size)
        wanted = twist
        if self.spec.frame == "tcp":
            R_tcp_base = T_base_target[:3, :3].T
            wanted = np.concatenate([R_tcp_base @ twist[:3], R_tcp_base @ twist[3:]])
        action[self._moving] = wanted[self._slots] + self._centred
        if self._gripper is not None:
            action[self._gripper] = gripper if gripper is not None else self._gripper_action(gripper_width_m)
        return action.clip(-1.0, 1.0).astype(np.float32)

    def executed(self, T_before: Array, T_after: Array, q_before: Array, q_after: Array, width_m: float) -> Action:
        """Map a move (between commanded or measured poses (4, 4) or joints (N,)) back to an action (A,)."""
        if self._tcp:
            if self.spec.kind is CommandKind.TCP_DELTA:
                full = pose_error(T_after, T_before)
                if self.spec.frame == "tcp":
                    R_tcp_base = T_before[:3, :3].T
                    full = np.concatenate([R_tcp_base @ full[:3], R_tcp_base @ full[3:]])
            else:
                full = np.concatenate([T_after[:3, 3], matrix_to_rotvec(T_after[:3, :3])])
            si = full[self._slots]
        else:
            si = q_after - q_before if self.spec.kind is CommandKind.JOINT_DELTA else q_after
        action = np.zeros(self.size)
        action[self._moving] = (si - self._motion_offset) / self._motion_scale
        if self._gripper is not None:
            action[self._gripper] = self._gripper_action(width_m)
        return action.astype(np.float32)

    def _width(self, action: float) -> float:
        """Gripper width [m] for a gripper action: +1 open, -1 closed; NaN for what is not finite, which is rejected."""
        if not math.isfinite(action):
            return math.nan
        closed_m, open_m = self.spec.gripper_closed_m, self.spec.gripper_open_m
        if self.spec.gripper == "binary":
            return open_m if action >= 0.0 else closed_m
        return closed_m + (action + 1.0) / 2.0 * (open_m - closed_m)

    def _gripper_action(self, width_m: float) -> float:
        closed_m, open_m = self.spec.gripper_closed_m, self.spec.gripper_open_m
        share = (width_m - closed_m) / (open_m - closed_m) * 2.0 - 1.0
        if self.spec.gripper == "binary":
            return 1.0 if share >= 0.0 else -1.0
        return min(max(share, -1.0), 1.0)

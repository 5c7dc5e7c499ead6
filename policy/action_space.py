"""Between normalised actions and timed SI commands.

In plain floats where it can be: for so few dimensions numpy's calls cost more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policy.manifest import TCP_DIMS, ActionSpec
from robot.command import Command, CommandKind
from robot.geometry import matrix_to_rotvec, twist_between

Action = NDArray[np.float32]
Array = NDArray[np.float64]
_UPRIGHT_RAD = 0.01  # a tool that is tilted less counts as upright
_RIGHTED = 0.5  # share of the tilt that one tick takes away


class ActionSpace:
    """Maps actions (A,) in [-1, 1] to commands and back, as the bundle's manifest says."""

    def __init__(self, spec: ActionSpec) -> None:
        self.spec = spec
        self._motion = np.array([name != "gripper" for name in spec.dims])
        self._gripper = spec.dims.index("gripper") if "gripper" in spec.dims else None
        self._tcp = spec.kind in (CommandKind.TCP_DELTA, CommandKind.TCP_POSE)
        self._tcp_delta = spec.kind is CommandKind.TCP_DELTA
        self._turned = self._tcp_delta and spec.frame == "tcp"
        moving: list[int] = np.flatnonzero(self._motion).tolist()
        # position of each motion dimension in the (6,) target, or in the joints' order
        slots = [TCP_DIMS.index(spec.dims[i]) for i in moving] if self._tcp else range(len(moving))
        # of each motion dimension: where it is in the action, where in the target, scale and offset
        self._ways = [(i, slot, spec.scale[i], spec.offset[i]) for i, slot in zip(moving, slots, strict=True)]
        self._target_size = 6 if self._tcp else len(moving)
        self._tilts = not self._tcp_delta or not {"roll", "pitch"}.isdisjoint(spec.dims)

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
        wanted: list[float] = action.tolist()
        full = [0.0] * self._target_size
        for i, slot, scale, offset in self._ways:
            full[slot] = wanted[i] * scale + offset
        target = np.array(full)
        if self._turned:
            R_base_tcp = T_base_target[:3, :3]
            target = np.concatenate([R_base_tcp @ target[:3], R_base_tcp @ target[3:]])
        width = gripper_width_m if self._gripper is None else self._width(wanted[self._gripper])
        return Command(kind=self.spec.kind, target=target, gripper_width_m=width, due_s=due_s)

    def righted(self, command: Command, T_base_target: Array, home_axis: Array | None) -> Command:
        """Return `command` with the turn that brings a tilted tool back, where no action could; for the way home.

        A filter that is armed anew starts at the measured pose, and an arm that was pressing on something is measured a
        degree off. Actions without roll and pitch would keep that for good, and add to it the next time.

        Args:
            command: of the way home.
            T_base_target: pose commanded last, (4, 4).
            home_axis: the tool's z axis at home, a unit vector in the base frame, shape (3,); None without a pose.
        """
        if self._tilts or home_axis is None:
            return command
        axis = np.cross(T_base_target[:3, 2], home_axis)
        sine = math.sqrt(float(axis @ axis))
        tilt_rad = math.atan2(sine, float(T_base_target[:3, 2] @ home_axis))
        if tilt_rad < _UPRIGHT_RAD or sine < 1e-6:
            return command
        target = command.target.copy()
        target[3:] += axis * (_RIGHTED * tilt_rad / sine)
        return replace(command, target=target)

    def from_human(
        self, twist: Array, gripper: float | None, *, T_base_target: Array, gripper_width_m: float
    ) -> Action:
        """Return the action (A,) for a person's base-frame twist (6,) in [-1, 1] and gripper wish.

        Full deflection is full scale of each dimension, a centred stick is no motion whatever the offset. `gripper`
        None keeps `gripper_width_m`. Of actuators the person drives the first six, each by one axis.
        """
        if self.spec.kind not in (CommandKind.TCP_DELTA, CommandKind.ACTUATION):
            raise ValueError(f"a person drives TCP deltas; this bundle's actions are {self.spec.kind.value}")
        wanted = twist
        if self.spec.kind is CommandKind.ACTUATION:
            wanted = np.concatenate([twist, np.zeros(max(0, self.size - len(twist)))])
        if self._turned:
            R_tcp_base = T_base_target[:3, :3].T
            wanted = np.concatenate([R_tcp_base @ twist[:3], R_tcp_base @ twist[3:]])
        action = np.zeros(self.size)
        for i, slot, scale, offset in self._ways:
            action[i] = wanted[slot] - offset / scale
        if self._gripper is not None:
            action[self._gripper] = gripper if gripper is not None else self._gripper_action(gripper_width_m)
        return action.clip(-1.0, 1.0).astype(np.float32)

    def executed(self, T_before: Array, T_after: Array, q_before: Array, q_after: Array, width_m: float) -> Action:
        """Map a move (between commanded or measured poses (4, 4) or joints (N,)) back to an action (A,)."""
        si: Sequence[float]
        if self._tcp_delta:
            si = twist_between(T_before.tolist(), T_after.tolist())
            if self._turned:
                R_tcp_base, twist = T_before[:3, :3].T, np.array(si)
                si = np.concatenate([R_tcp_base @ twist[:3], R_tcp_base @ twist[3:]]).tolist()
        elif self._tcp:
            si = [*T_after[:3, 3].tolist(), *matrix_to_rotvec(T_after[:3, :3]).tolist()]
        else:
            si = (q_after - q_before if self.spec.kind is CommandKind.JOINT_DELTA else q_after).tolist()
        action = [0.0] * self.size
        for i, slot, scale, offset in self._ways:
            action[i] = (si[slot] - offset) / scale
        if self._gripper is not None:
            action[self._gripper] = self._gripper_action(width_m)
        return np.array(action, np.float32)

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

"""A safety filter on an FR3 with an arm that follows it, for the tests of the filter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Hold, Reason, SafeCommand
from robot.fr3 import HOME_Q_RAD, FR3Kinematics
from robot.geometry import matrix_to_rotvec
from robot.kinematics import Kinematics
from robot.safety import FilterState, SafetyFilter
from robot.safety_limits import SafetyLimits

Array = NDArray[np.float64]

PERIOD_S = 0.05
TOLERANCE = 1e-9
KINEMATICS = FR3Kinematics()
HOME_Q = np.array(HOME_Q_RAD)
T_HOME = KINEMATICS.forward(HOME_Q)
LIMITS = SafetyLimits(
    workspace_min_m=(0.2, -0.3, 0.05),
    workspace_max_m=(0.6, 0.3, 0.6),
    max_speed_m_s=0.3,
    max_rotation_speed_rad_s=1.5,
    max_acceleration_m_s2=1.0,
    max_angular_acceleration_rad_s2=6.0,
    max_tracking_m=0.15,
    max_tracking_rad=0.8,
    max_tilt_rad=0.5,
    joint_margin_rad=0.1,
    max_joint_speed_share=0.6,
    max_force_n=30.0,
    gripper_min_m=0.0,
    gripper_max_m=0.08,
)


def arm_state(T: Array = T_HOME, q_rad: Array = HOME_Q, **changes: object) -> ArmState:
    """An arm at rest in pose `T` with joints `q_rad`."""
    state = ArmState(
        measured_s=10.0,
        q_rad=q_rad,
        dq_rad_s=np.zeros(q_rad.size),
        T_base_tcp=T,
        tcp_velocity=np.zeros(6),
        gripper_width_m=0.04,
    )
    return dataclasses.replace(state, **changes)  # type: ignore[arg-type]


def command(target: object, kind: CommandKind = CommandKind.TCP_DELTA, width_m: float = 0.04) -> Command:
    """A command due at a time that does not matter."""
    return Command(kind=kind, target=target, gripper_width_m=width_m, due_s=11.0)  # type: ignore[arg-type]


def delta(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0
) -> Command:
    """A TCP delta of one tick [m, rad]."""
    return command(np.array([x, y, z, roll, pitch, yaw]))


class Bench:
    """Steps a filter and holds every promise that it makes after each step."""

    def __init__(
        self,
        limits: SafetyLimits = LIMITS,
        kinematics: Kinematics | None = KINEMATICS,
        at: ArmState | None = None,
    ) -> None:
        self.limits = limits
        self.filter = SafetyFilter(limits, kinematics, PERIOD_S, T_HOME[:3, :3])
        self.arm = at or arm_state(q_rad=HOME_Q if kinematics is not None else np.zeros(0))
        self.state = self.filter.rearm(self.filter.start(self.arm), self.arm)
        self.output: SafeCommand | Hold | None = None

    def step(self, wanted: Command | None, measured: ArmState | None = None) -> Reason:
        """Step once, check it, and let the arm follow unless `measured` says where it is. Returns the reasons."""
        before = self.state
        self.state, self.output = self.filter.step(before, measured or self.arm, wanted)
        self.check(before, self.state)
        if measured is None:
            self.arm = dataclasses.replace(self.arm, T_base_tcp=self.state.T_base_tcp, q_rad=self.state.q_rad)
        return self.output.reasons

    def settle(self) -> int:
        """Step without a command until the filter holds; return after how many steps."""
        for count in range(1, 200):
            self.step(None)
            if isinstance(self.output, Hold):
                return count
        raise AssertionError("the filter never came to rest")

    def check(self, before: FilterState, after: FilterState) -> None:
        limits = self.limits
        assert np.isfinite(after.T_base_tcp).all()
        moved = after.T_base_tcp[:3, 3] - before.T_base_tcp[:3, 3]
        turned = matrix_to_rotvec(after.T_base_tcp[:3, :3] @ before.T_base_tcp[:3, :3].T)
        np.testing.assert_allclose(after.T_base_tcp[:3, :3] @ after.T_base_tcp[:3, :3].T, np.eye(3), atol=1e-12)
        if not isinstance(self.output, Hold):
            # what the state says about the velocity is what the poses did
            np.testing.assert_allclose(after.velocity * PERIOD_S, np.concatenate([moved, turned]), atol=1e-10)
        else:
            assert not moved.any()
            assert not turned.any()
            assert after.at_rest
        assert np.linalg.norm(moved) <= limits.max_speed_m_s * PERIOD_S + TOLERANCE
        assert np.linalg.norm(turned) <= limits.max_rotation_speed_rad_s * PERIOD_S + TOLERANCE
        change = (after.velocity - before.velocity) / PERIOD_S
        assert np.linalg.norm(change[:3]) <= limits.max_acceleration_m_s2 + 1e-6
        assert np.linalg.norm(change[3:]) <= limits.max_angular_acceleration_rad_s2 + 1e-6
        for axis in range(3):
            was, now = before.T_base_tcp[axis, 3], after.T_base_tcp[axis, 3]
            assert min(limits.workspace_min_m[axis], was) <= now <= max(limits.workspace_max_m[axis], was)
        assert tilt_rad(after.T_base_tcp) <= max(limits.max_tilt_rad, tilt_rad(before.T_base_tcp)) + 2e-6
        assert limits.gripper_min_m <= after.gripper_width_m <= limits.gripper_max_m
        if after.q_rad.size:
            self.check_joints(before.q_rad, after)

    def check_joints(self, q_before: Array, after: FilterState) -> None:
        joints, margin = KINEMATICS.joint_limits, self.limits.joint_margin_rad
        assert (after.q_rad >= np.minimum(joints.q_min_rad + margin, q_before)).all()
        assert (after.q_rad <= np.maximum(joints.q_max_rad - margin, q_before)).all()
        assert (np.abs(after.q_rad - q_before) <= joints.dq_max_rad_s * PERIOD_S + TOLERANCE).all()
        T_joints = KINEMATICS.forward(after.q_rad)
        assert np.linalg.norm(T_joints[:3, 3] - after.T_base_tcp[:3, 3]) < 0.2e-3


def tilt_rad(T: Array) -> float:
    """Angle between the tool's z axis in pose `T` and at home [rad]."""
    z, z_home = T[:3, 2], T_HOME[:3, 2]
    return math.atan2(float(np.linalg.norm(np.cross(z_home, z))), float(z_home @ z))

"""The last gate before the arm: every target passes it, whoever wants it.

Not a safety-rated function: it bounds what software sends, it does not replace the emergency stop.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.command import Command, Hold, Reason, SafeCommand
from robot.errors import HardwareError
from robot.filter_state import FilterState
from robot.follower import Follower, Move
from robot.geometry import orthonormalise, pose, rotation_angle
from robot.kinematics import Kinematics
from robot.safety_limits import SafetyLimits
from robot.step_limits import StepLimits, both
from robot.stopping import Vector, length_to_stop_within, scaled
from robot.wish import Wish, read_wish

__all__ = ["FilterState", "SafetyFilter"]

Array = NDArray[np.float64]

MAX_REJECTIONS = 3
# Near a singularity joints go further than in proportion to the step, so that one shortening is not enough; an arm that
# stands at its furthest reach would never leave it.
_SHORTENINGS = 6
# The measured pose and the kinematics of the measured joints must agree to this, or one of them has the wrong tool and
# the workspace box is not where the person thinks it is.
TOOL_TOLERANCE_M = 5e-3
TOOL_TOLERANCE_RAD = math.radians(2.0)

_NONE = Reason.NONE  # to look up a member of an enum takes 0.1 us


class SafetyFilter:
    """Turns commands into safe commands, as a pure step: the same input gives the same bits.

    Args:
        limits: thresholds of the station.
        kinematics: of the arm with its tool; None for an arm known by its TCP pose only, without joint checks.
        period_s: length of a tick [s].
        R_base_home: home orientation of the TCP, shape (3, 3); the tilt limit counts from its z axis.

    Attributes:
        home_axis: that axis, a unit vector in the base frame, shape (3,).
    """

    def __init__(
        self, limits: SafetyLimits, kinematics: Kinematics | None, period_s: float, R_base_home: Array
    ) -> None:
        self._limits = limits
        self._kinematics = kinematics
        self._period_s = period_s
        self.home_axis: Array = orthonormalise(R_base_home)[:, 2]
        self._steps = StepLimits(limits, period_s, self.home_axis)
        self._follower = Follower(kinematics, limits, self._steps, period_s)

    def start(self, arm_state: ArmState) -> FilterState:
        """Return the state at the measured pose, latched: nothing moves until the person arms (`rearm`).

        Raises:
            HardwareError: the arm state has no usable pose, or contradicts the kinematics.
        """
        return self._seed(arm_state, latched=True, reasons=Reason.FAULTED)

    def rearm(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Unlatch at the measured pose, for the person's arm verb only; clear the arm's own fault before.

        Does nothing while the arm still brakes or is armed already, for a new start would be a jump; stays latched
        while the arm reports a fault or a force over the limit. Raises HardwareError as `start`.
        """
        if not (state.latched and state.at_rest):
            return state
        stop = self._stop_reasons(arm_state)
        return self._seed(arm_state, latched=bool(stop), reasons=stop | Reason.FAULTED if stop else Reason.NONE)

    def anchored(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Return the state with its pose, width and joints where the arm is measured, at rest.

        For an arm that plays a recording: it goes where it went whatever is sent, so each command is judged as the
        first one from where the arm is. Latch, reasons and rejections stay. Raises HardwareError as `start`.
        """
        seeded = self._seed(arm_state, latched=state.latched, reasons=state.reasons)
        return replace(seeded, rejections=state.rejections)

    def step(
        self, state: FilterState, arm_state: ArmState, command: Command | None
    ) -> tuple[FilterState, SafeCommand | Hold]:
        """Return the next state and what to send to the arm for one tick.

        A SafeCommand is to be sent even while latched: it is the arm braking within its limits. A Hold comes at rest.

        Args:
            state: of the tick before.
            arm_state: measured now.
            command: wanted now; None slows down and holds.
        """
        stop = self._stop_reasons(arm_state)
        if state.latched or stop:
            kept = state.reasons if state.latched else _NONE
            return self._brake(state, state.rejections, True, kept | stop | Reason.FAULTED)
        if command is None:
            return self._brake(state, state.rejections, False, _NONE)
        wish = read_wish(state, arm_state, command, self._kinematics)
        if isinstance(wish, Reason):
            return self._reject(state, wish)
        move, reasons = self._limited(state, arm_state, wish)
        if move is None:
            return self._reject(state, reasons)
        width_m = min(max(command.gripper_width_m, self._limits.gripper_min_m), self._limits.gripper_max_m)
        if width_m != command.gripper_width_m:
            reasons |= Reason.GRIPPER
        return self._send(move, width_m, command.due_s, 0, False, reasons)

    def _stop_reasons(self, arm_state: ArmState) -> Reason:
        reasons = _NONE
        # written so that a force that is not a number stops, too
        if arm_state.force_n is not None and not arm_state.force_n <= self._limits.max_force_n:
            reasons |= Reason.FORCE
        if arm_state.fault is not None:
            reasons |= Reason.ARM_FAULT
        return reasons

    def _seed(self, arm_state: ArmState, *, latched: bool, reasons: Reason) -> FilterState:
        T = arm_state.T_base_tcp
        numbers = (arm_state.gripper_width_m, arm_state.measured_s)
        if T.shape != (4, 4) or not np.isfinite(T).all() or not all(map(math.isfinite, numbers)):
            raise HardwareError(f"arm state: pose, gripper width or time is not finite ({numbers}); check the driver")
        T = pose(orthonormalise(T[:3, :3]), T[:3, 3])
        q_rad = np.zeros(0)
        if self._kinematics is not None:
            joints = self._kinematics.joint_limits
            q_rad = arm_state.q_rad.copy()
            if q_rad.shape != joints.q_min_rad.shape or not np.isfinite(q_rad).all():
                raise HardwareError(f"arm state: q_rad is {q_rad}, not {joints.q_min_rad.size} finite joints")
            # the pose of the joints, so that a target equal to it needs no motion at all
            T_joints = self._kinematics.forward(q_rad)
            off_m = math.dist(T_joints[:3, 3].tolist(), T[:3, 3].tolist())
            off_rad = rotation_angle(T_joints[:3, :3], T[:3, :3])
            # written so that a pose that is not a number is refused, too
            if not (off_m <= TOOL_TOLERANCE_M and off_rad <= TOOL_TOLERANCE_RAD):
                raise HardwareError(
                    f"arm state: measured TCP is {1e3 * off_m:.1f} mm and {math.degrees(off_rad):.1f} degrees from "
                    f"the kinematics of its joints (allowed {1e3 * TOOL_TOLERANCE_M:.0f} mm, "
                    f"{math.degrees(TOOL_TOLERANCE_RAD):.0f} degrees); set the same tool in the arm and the station"
                )
            T = T_joints
        return FilterState(
            T_base_tcp=T,
            q_rad=q_rad,
            velocity=np.zeros(6),
            gripper_width_m=min(max(arm_state.gripper_width_m, self._limits.gripper_min_m), self._limits.gripper_max_m),
            due_s=arm_state.measured_s,
            rejections=0,
            latched=latched,
            reasons=reasons,
        )

    def _limited(self, state: FilterState, arm_state: ArmState, wish: Wish) -> tuple[Move | None, Reason]:
        """Return the move nearest to the wish that all limits allow, and what was changed; None when rejected."""
        before_m, before_rad = self._steps_before(state)
        T, T_measured, q_rad = state.T_base_tcp, arm_state.T_base_tcp, state.q_rad
        translation, rotation = wish.translation, wish.rotation
        if wish.stops:
            # no faster than braking can still end at the target
            translation = _stopping_after(translation, self._steps.change_m)
            rotation = _stopping_after(rotation, self._steps.change_rad)
        translation, reasons = self._steps.translation(_position(T), before_m, translation, _position(T_measured))
        rotation, found = self._steps.rotation(T[:3, :3], before_rad, rotation, T_measured[:3, :3])
        reasons = both(reasons, found)
        move, found = self._moved(state, translation, rotation, wish)
        excess = 0.0 if move is None else self._follower.excess(q_rad, move)
        too_fast = excess > 1.0
        for _ in range(_SHORTENINGS):
            if excess <= 1.0:
                break
            reasons |= Reason.JOINT_SPEED
            # shorter in the same direction stays inside every wall; only the acceleration has to be looked at again
            translation, rotation = scaled(translation, 0.98 / excess), scaled(rotation, 0.98 / excess)
            slow_enough = (
                math.dist(translation, before_m) <= self._steps.change_m
                and math.dist(rotation, before_rad) <= self._steps.change_rad
            )
            move, found = self._moved(state, translation, rotation, wish) if slow_enough else (None, _NONE)
            if move is None:
                break
            excess = self._follower.excess(q_rad, move)
        if too_fast and (move is None or excess > 1.0):
            return self._follower.braking(T, q_rad, before_m, before_rad), reasons
        if move is not None and not self._follower.can_stop(q_rad, move):
            return None, reasons | Reason.JOINT_LIMIT
        return move, both(reasons, found)

    def _moved(
        self, state: FilterState, translation: Vector, rotation: Vector, wish: Wish
    ) -> tuple[Move | None, Reason]:
        """Return the move for a Cartesian step; its joints are sought on the way to the wish's own where it has any."""
        q_start_rad = state.q_rad
        if wish.q_rad is not None:
            share = min(_share(translation, wish.translation), _share(rotation, wish.rotation))
            q_start_rad = self._follower.toward(q_start_rad, wish.q_rad, share)
        return self._follower.move(state.T_base_tcp, state.q_rad, translation, rotation, q_start_rad)

    def _steps_before(self, state: FilterState) -> tuple[Vector, Vector]:
        """Return the translation [m] and the rotation vector [rad] of the last tick."""
        (x, y, z, rx, ry, rz), period_s = state.velocity.tolist(), self._period_s
        return (x * period_s, y * period_s, z * period_s), (rx * period_s, ry * period_s, rz * period_s)

    def _reject(self, state: FilterState, reasons: Reason) -> tuple[FilterState, SafeCommand | Hold]:
        rejections = state.rejections + 1
        latched = rejections >= MAX_REJECTIONS
        return self._brake(state, rejections, latched, reasons | Reason.FAULTED if latched else reasons)

    def _brake(
        self, state: FilterState, rejections: int, latched: bool, reasons: Reason
    ) -> tuple[FilterState, SafeCommand | Hold]:
        """Slow down within the acceleration limits; hold once at rest.

        Where the joints cannot follow the braking, which `Follower.can_stop` makes rare, the hold comes at once: joint
        limits go before smoothness, and the arm's own hold slows it down.
        """
        before_m, before_rad = self._steps_before(state)
        move = None if state.at_rest else self._follower.braking(state.T_base_tcp, state.q_rad, before_m, before_rad)
        if move is not None and not move.still:
            due_s = state.due_s + self._period_s
            return self._send(move, state.gripper_width_m, due_s, rejections, latched, reasons)
        held = FilterState(
            T_base_tcp=state.T_base_tcp,
            q_rad=state.q_rad,
            velocity=np.zeros(6),
            gripper_width_m=state.gripper_width_m,
            due_s=state.due_s,
            rejections=rejections,
            latched=latched,
            reasons=reasons,
        )
        return held, Hold(reasons=reasons, latched=latched)

    def _send(
        self, move: Move, width_m: float, due_s: float, rejections: int, latched: bool, reasons: Reason
    ) -> tuple[FilterState, SafeCommand]:
        (x, y, z), (rx, ry, rz), period_s = move.translation, move.rotation, self._period_s
        state = FilterState(
            T_base_tcp=move.T_base_tcp,
            q_rad=move.q_rad,
            velocity=np.array((x / period_s, y / period_s, z / period_s, rx / period_s, ry / period_s, rz / period_s)),
            gripper_width_m=width_m,
            due_s=due_s,
            rejections=rejections,
            latched=latched,
            reasons=reasons,
        )
        command = SafeCommand(
            T_base_tcp=state.T_base_tcp,
            q_rad=state.q_rad,
            gripper_width_m=width_m,
            due_s=due_s,
            reasons=reasons,
            token=SafeCommand._TOKEN,
        )
        return state, command


def _stopping_after(way: Vector, change: float) -> Vector:
    """Return the first step of `way` that is short enough for braking to end at its end."""
    length = math.hypot(*way)
    return way if length <= change else scaled(way, length_to_stop_within(length, change) / length)


def _share(step: Vector, way: Vector) -> float:
    """Return which share of `way` a step covers, 0 to 1; 1 where there is no way to go."""
    length = math.hypot(*way)
    return 1.0 if length < 1e-9 else min(1.0, math.hypot(*step) / length)


def _position(T: Array) -> Vector:
    x, y, z = T[:3, 3].tolist()
    return x, y, z

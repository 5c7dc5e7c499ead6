"""The last gate of an environment whose actions are no motion: it bounds the numbers, for more is not known of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Hold, Reason, SafeCommand
from robot.errors import HardwareError
from robot.filter_state import FilterState
from robot.safety import MAX_REJECTIONS
from robot.safety_limits import SafetyLimits

Array = NDArray[np.float64]
_RANGE = 1.0


class ActuationFilter:
    """As `robot.safety.SafetyFilter`, for commands of kind ACTUATION: pure, latched until the person arms.

    Where a torque leads is known only once it has acted. So this filter bounds each number to its range and to
    `max_change` in a tick, and watches the rest: once the measured hand has left the workspace it latches, and the arm
    gets no actuation. No speed, tilt or joint is bounded, and nothing brakes: to hold is to let go.

    Args:
        limits: of the station; the workspace is all that can be watched.
        max_change: greatest change of a number in a tick, share of its range of -1 to 1.
        watches: whether the hand's position is known.
    """

    home_axis: None = None

    def __init__(self, limits: SafetyLimits, *, max_change: float, watches: bool) -> None:
        self._max_change = max_change
        self._box = (np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)) if watches else None

    def start(self, arm_state: ArmState) -> FilterState:
        """Return the state at the measured actuation, latched. Raises HardwareError when it is not finite."""
        return self._seed(arm_state, latched=True, reasons=Reason.FAULTED)

    def rearm(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Unlatch for the person's arm verb; stays latched while the reason is there. Raises as `start`."""
        if not state.latched:
            return state
        stop = self._stop_reasons(arm_state)
        return self._seed(arm_state, latched=bool(stop), reasons=stop | Reason.FAULTED if stop else Reason.NONE)

    def anchored(self, state: FilterState, arm_state: ArmState) -> FilterState:
        """Return the state as the arm is measured; latch, reasons and rejections stay. Raises as `start`."""
        seeded = self._seed(arm_state, latched=state.latched, reasons=state.reasons)
        return replace(seeded, rejections=state.rejections)

    def step(
        self, state: FilterState, arm_state: ArmState, command: Command | None
    ) -> tuple[FilterState, SafeCommand | Hold]:
        """Return the next state and what to send for one tick; a Hold is no actuation."""
        stop = self._stop_reasons(arm_state)
        if state.latched or stop:
            kept = state.reasons if state.latched else Reason.NONE
            return self._held(state, arm_state, state.rejections, True, kept | stop | Reason.FAULTED)
        if command is None:
            return self._held(state, arm_state, state.rejections, False, Reason.NONE)
        target = command.target
        wrong = Reason.NONE
        if command.kind is not CommandKind.ACTUATION or target.shape != state.q_rad.shape:
            wrong = Reason.WRONG_SHAPE
        elif not np.isfinite(target).all() or not math.isfinite(command.due_s):
            wrong = Reason.NOT_FINITE
        if wrong:
            rejections = state.rejections + 1
            latched = rejections >= MAX_REJECTIONS
            return self._held(state, arm_state, rejections, latched, wrong | Reason.FAULTED if latched else wrong)
        bounded = np.clip(target, -_RANGE, _RANGE)
        bounded = np.clip(bounded, state.q_rad - self._max_change, state.q_rad + self._max_change)
        reasons = Reason.NONE if np.array_equal(bounded, target) else Reason.ACTUATION
        after = FilterState(
            T_base_tcp=arm_state.T_base_tcp.copy(),
            q_rad=bounded,
            velocity=np.zeros(6),
            gripper_width_m=arm_state.gripper_width_m,
            due_s=command.due_s,
            rejections=0,
            latched=False,
            reasons=reasons,
        )
        return after, SafeCommand(
            T_base_tcp=after.T_base_tcp,
            q_rad=bounded,
            gripper_width_m=after.gripper_width_m,
            due_s=command.due_s,
            reasons=reasons,
            token=SafeCommand._TOKEN,
        )

    def _stop_reasons(self, arm_state: ArmState) -> Reason:
        reasons = Reason.NONE if arm_state.fault is None else Reason.ARM_FAULT
        if self._box is not None:
            p = arm_state.T_base_tcp[:3, 3]
            if not ((p >= self._box[0]) & (p <= self._box[1])).all():  # written so that NaN stops, too
                reasons |= Reason.WORKSPACE
        return reasons

    def _seed(self, arm_state: ArmState, *, latched: bool, reasons: Reason) -> FilterState:
        q, T = arm_state.q_rad, arm_state.T_base_tcp
        if not np.isfinite(q).all() or not np.isfinite(T).all() or not math.isfinite(arm_state.measured_s):
            raise HardwareError(f"arm state: actuation {q} or the hand's pose is not finite; check the environment")
        return FilterState(
            T_base_tcp=T.copy(),
            q_rad=np.clip(q, -_RANGE, _RANGE),
            velocity=np.zeros(6),
            gripper_width_m=arm_state.gripper_width_m,
            due_s=arm_state.measured_s,
            rejections=0,
            latched=latched,
            reasons=reasons,
        )

    def _held(
        self, state: FilterState, arm_state: ArmState, rejections: int, latched: bool, reasons: Reason
    ) -> tuple[FilterState, Hold]:
        """Nothing is commanded; the next actuation counts its change from none."""
        held = replace(
            state,
            T_base_tcp=arm_state.T_base_tcp.copy(),
            q_rad=np.zeros_like(state.q_rad),
            rejections=rejections,
            latched=latched,
            reasons=reasons,
        )
        return held, Hold(reasons=reasons, latched=latched)

"""Where the arm was when the frames were taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.geometry import interpolate_pose


@runtime_checkable
class KeepsHistory(Protocol):
    """An arm that is measured more often than the loop asks it."""

    def history(self) -> Sequence[ArmState]:
        """Return the states measured since the last call, oldest first, those that `state` gave among them unchanged.

        Never blocks.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Around:
    """Two measured states with a moment between them; one state twice where the history begins or ends."""

    before: ArmState
    after: ArmState

    def clamped_s(self, time_s: float) -> float:
        """Return the moment nearest to `time_s` that the two states can tell of [s]."""
        return min(max(time_s, self.before.measured_s), self.after.measured_s)

    def at(self, time_s: float) -> ArmState:
        """Return the state at `time_s`, never extrapolated.

        Joints, gripper, velocities and position on a line, orientation by slerp. Force and fault are no path between
        two values; they are those of the later state.
        """
        before, after, time_s = self.before, self.after, self.clamped_s(time_s)
        if time_s >= after.measured_s:
            return after
        if time_s <= before.measured_s:
            return before
        share = (time_s - before.measured_s) / (after.measured_s - before.measured_s)
        return replace(
            after,
            measured_s=time_s,
            q_rad=_between(before.q_rad, after.q_rad, share),
            dq_rad_s=_between(before.dq_rad_s, after.dq_rad_s, share),
            T_base_tcp=interpolate_pose(before.T_base_tcp, after.T_base_tcp, share),
            tcp_velocity=_between(before.tcp_velocity, after.tcp_velocity, share),
            gripper_width_m=before.gripper_width_m + share * (after.gripper_width_m - before.gripper_width_m),
        )


class ArmHistory:
    """The arm's states of the last `span_s` seconds, in the order in which they were measured."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._states: deque[ArmState] = deque()

    def add(self, state: ArmState) -> None:
        """Remember a state; one that is not newer than the last says nothing new."""
        states = self._states
        if states and not state.measured_s > states[-1].measured_s:
            return
        states.append(state)
        # the oldest one kept is just older than the span, so that every moment within it has a state before it
        while len(states) > 1 and states[1].measured_s <= state.measured_s - self._span_s:
            states.popleft()

    def around(self, time_s: float) -> Around:
        """Return the states next to `time_s`: the oldest twice before it, the newest twice after it.

        Raises:
            LookupError: no state was added yet.
        """
        if not self._states:
            raise LookupError("arm history: no state yet")
        after = self._states[-1]
        for state in reversed(self._states):  # what is looked for is a few states back, however long the history
            if state.measured_s <= time_s:
                return Around(before=state, after=after if state.measured_s < time_s else state)
            after = state
        return Around(before=after, after=after)


def _between(before: NDArray[np.float64], after: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return before + share * (after - before)

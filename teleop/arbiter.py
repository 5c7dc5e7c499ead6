"""Who drives: one pure step that turns the voices of a tick into a Decision."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.observation import Verdict
from teleop.human_input import AssistMode, HumanCommand, HumanEvent

Action = NDArray[np.float32]
_ONE = np.float32(1.0)


class Source(enum.IntEnum):
    """Whose action the arm was given."""

    POLICY = 0
    HUMAN = 1
    HOLD = 2
    RESET = 3


class HoldReason(enum.IntFlag):
    """Why nobody drives; stored as a bit mask per tick."""

    NONE = 0
    NOT_ARMED = 1 << 0
    STOPPED = 1 << 1
    PERSON_HOLD = 1 << 2
    DEVICE_SILENT = 1 << 3
    DEVICE_UNPLUGGED = 1 << 4
    STALE_FRAMES = 1 << 5
    SKEWED_FRAMES = 1 << 6
    REPEATED_FRAMES = 1 << 7
    MISSING_FRAMES = 1 << 8
    NO_PROPOSAL = 1 << 9
    OVERRUN = 1 << 10
    FILTER_LATCHED = 1 << 11


_VERDICT_REASON = {
    Verdict.STALE: HoldReason.STALE_FRAMES,
    Verdict.SKEWED: HoldReason.SKEWED_FRAMES,
    Verdict.REPEATED: HoldReason.REPEATED_FRAMES,
    Verdict.MISSING: HoldReason.MISSING_FRAMES,
}


@dataclass(frozen=True, kw_only=True)
class ArbiterState:
    """What the arbiter remembers from tick to tick.

    Attributes:
        armed: False until the person's arm verb, and after a stop.
        stopped: True from the stop verb to the next arm verb.
        holding: toggled by the hold verb.
        previous: source of the tick before.
    """

    armed: bool = False
    stopped: bool = False
    holding: bool = False
    previous: Source = Source.HOLD

    def packed(self) -> int:
        """As one integer, for the log."""
        return int(self.armed) | int(self.stopped) << 1 | int(self.holding) << 2 | int(self.previous) << 3

    @classmethod
    def unpacked(cls, bits: int) -> ArbiterState:
        """Inverse of `packed`."""
        return cls(
            armed=bool(bits & 1), stopped=bool(bits & 2), holding=bool(bits & 4), previous=Source((bits >> 3) & 3)
        )


@dataclass(frozen=True, kw_only=True)
class Voices:
    """Everything that has a say in one tick.

    Attributes:
        base: the base policy's action (A,), None without a proposal.
        residual: what is added to it (A,), zeros where the gate is closed.
        noise: exploration (A,); part of the residual already, but for a perturbed person.
        human: the person's device.
        human_action: the person's wish as an action (A,); zeros while they do not drive.
        reset: the homing action (A,) while the episode is being reset, else None.
        verdict: judgement on the frames.
        overrun: True when the loop missed three deadlines in a row.
        filter_latched: True while the safety filter waits for the arm verb.
        now_s: tick start [s].
    """

    base: Action | None
    residual: Action
    noise: Action
    human: HumanCommand
    human_action: Action
    reset: Action | None
    verdict: Verdict
    overrun: bool
    filter_latched: bool
    now_s: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The action chosen for one tick.

    Attributes:
        action: (A,) normalised; None means hold.
        source: whose it is.
        reason: why nobody drives, NONE otherwise.
    """

    action: Action | None
    source: Source
    reason: HoldReason


@dataclass(frozen=True, kw_only=True)
class Arbiter:
    """The rule. Pure: the same state and voices give the same decision, bit for bit.

    Attributes:
        mode: takeover replaces the policy's action, nudge adds to it.
        silence_s: how long the input poller may be silent before the arm holds [s].
        motion: mask (A,) of the dimensions that move the arm; a nudge adds to these, the gripper is replaced.
        perturb: add the exploration noise to what the person drives.
    """

    mode: AssistMode
    silence_s: float
    motion: NDArray[np.bool_]
    perturb: bool = False

    def step(self, state: ArbiterState, voices: Voices) -> tuple[ArbiterState, Decision]:
        """Return the next state and this tick's decision.

        Faults come before the person, the person before the reset's homing, homing before the policy: an arm that
        cannot find its way home is driven free. A person never drives an arm that is not armed, and an unplugged or
        silent device always holds.
        """
        state = self._heed(state, voices.human.events)
        reason = self._hold_reason(state, voices)
        if reason is not HoldReason.NONE:
            decision = Decision(action=None, source=Source.HOLD, reason=reason)
        elif voices.human.engaged:
            action = self.wish(voices)
            if self.perturb:
                action = _bounded(action + voices.noise)
            decision = Decision(action=action, source=Source.HUMAN, reason=reason)
        elif voices.reset is not None:
            decision = Decision(action=voices.reset, source=Source.RESET, reason=reason)
        elif voices.base is None:
            decision = Decision(action=None, source=Source.HOLD, reason=HoldReason.NO_PROPOSAL)
        else:
            action = _bounded(voices.base + voices.residual)
            decision = Decision(action=action, source=Source.POLICY, reason=reason)
        if decision.source is not state.previous:
            state = replace(state, previous=decision.source)
        return state, decision

    def _heed(self, state: ArbiterState, events: HumanEvent) -> ArbiterState:
        """Apply the person's verbs; a stop in the same tick wins over everything."""
        if not events:
            return state
        if HumanEvent.ARM in events:
            state = replace(state, armed=True, stopped=False, holding=False)
        if HumanEvent.HOLD in events:
            state = replace(state, holding=not state.holding)
        if events & (HumanEvent.STOP | HumanEvent.QUIT):
            state = replace(state, armed=False, stopped=True)
        return state

    def _hold_reason(self, state: ArbiterState, voices: Voices) -> HoldReason:
        reason = HoldReason.NONE
        if state.stopped:
            reason |= HoldReason.STOPPED
        elif not state.armed:
            reason |= HoldReason.NOT_ARMED
        if state.holding:
            reason |= HoldReason.PERSON_HOLD
        if not voices.human.connected:
            reason |= HoldReason.DEVICE_UNPLUGGED
        elif not voices.now_s - voices.human.polled_s <= self.silence_s:  # NaN is silence, too
            reason |= HoldReason.DEVICE_SILENT
        if voices.overrun:
            reason |= HoldReason.OVERRUN
        if voices.filter_latched:
            reason |= HoldReason.FILTER_LATCHED
        if voices.reset is None and voices.verdict is not Verdict.FRESH:  # homing does not look
            reason |= _VERDICT_REASON[voices.verdict]
        return reason

    def wish(self, voices: Voices) -> Action:
        """The whole action (A,) that an engaged person wants done: theirs, or the policy's with their nudge."""
        if self.mode is AssistMode.TAKEOVER or voices.base is None:
            return voices.human_action
        policy = voices.base + voices.residual
        nudged = np.where(self.motion, policy + voices.human_action, policy)
        if voices.human.gripper is not None:
            nudged = np.where(self.motion, nudged, voices.human_action)
        return np.clip(nudged, -1.0, 1.0).astype(np.float32)


def _bounded(action: Action) -> Action:
    """Return the action (A,) within [-1, 1], bounded in place; np.clip takes several times as long."""
    np.minimum(action, _ONE, out=action)
    np.maximum(action, -_ONE, out=action)
    return action

"""One tick, from what was observed to what may be sent: pure, so that a replay recomputes it bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.observation import Observation, Verdict
from policy.action_space import ActionSpace
from policy.bundle import Bundle
from policy.chunk_source import ChunkReply, ChunkRequest, ReplyKind
from policy.observation_history import PRESENT, HistoryTicks, Window, next_window
from policy.onnx_session import PolicyError
from policy.residual import ResidualHead
from robot.command import Hold, Reason, SafeCommand
from robot.filter_state import FilterState
from robot.safety_gate import SafetyGate
from teleop.arbiter import Arbiter, ArbiterState, Decision, Source, Voices
from teleop.chunk_plan import MAX_REJECTED, NOTHING_ASKED, Asking, Chunk, ChunkEvent, ChunkPlan
from teleop.human_input import AssistMode, HumanCommand, HumanEvent

Action = NDArray[np.float32]
_UNKNOWN = np.full(2, np.nan, np.float32)
_UNKNOWN.setflags(write=False)


@dataclass(frozen=True, kw_only=True)
class TickState:
    """What one tick hands to the next.

    Attributes:
        chunk: plan in force; with requests ahead of time as it is executed, its seam included.
        asking: requests ahead of time; stays as it is where the policy is asked within the tick.
        window: what was seen last, where somebody acted on it; None where the next window begins anew, and where the
            residual sees the present tick alone.
    """

    arbiter: ArbiterState
    filter: FilterState
    chunk: Chunk | None = None
    asking: Asking = NOTHING_ASKED
    window: Window | None = None


@dataclass(frozen=True, kw_only=True)
class TickInputs:
    """Everything a tick depends on besides `TickState`; all of it is logged.

    Attributes:
        index: periods since the episode's first tick; it jumps over ticks that a late loop skipped.
        now_s: tick start [s].
        due_s: when the command is to be reached [s].
        observation: synchronised frames and arm state.
        human: what the person's device says.
        reset: homing action (A,) while the episode is being reset, else None.
        noise: exploration added to the residual (A,), zeros without.
        gate_forced: a scheduled pass of a closed value gate.
        overrun: the loop missed three deadlines in a row.
        reply: what arrived of a chunk that was asked for ahead of time, None when nothing did.
        policy_failed: in a replay, that the base policy raised; live it is known only once it was tried.
    """

    index: int
    now_s: float
    due_s: float
    observation: Observation
    human: HumanCommand
    reset: Action | None
    noise: Action
    gate_forced: bool
    overrun: bool
    reply: ChunkReply | None = None
    policy_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class TickOutputs:
    """What every voice said and what came of it.

    Attributes:
        features: of the base policy (F,), None without a usable observation.
        base: base policy's action (A,), None without a proposal.
        residual: correction with noise (A,), as it was added; zeros where the gate is closed.
        gate: value of base and of base + residual by the gate's critics (least of them); NaN where none was asked.
        gate_open: True when base + residual is not worth less, or the gate is forced, absent or off.
        human: the whole action that the person wants (A,), None while not engaged.
        decision: who drives.
        command: what the filter let through, or its refusal.
        commanded: the executed move mapped back to action space (A,).
        request: to be handed to the chunk source, None when nothing is to be asked.
        chunk_events: what happened to requests.
        chunk_delay_s: measured delay of the answer that was taken, NaN without one [s].
        policy_failure: one line about why the base policy gave nothing, None where it did not fail.
        residual_failed: True when the residual is not a number although all that it was computed from is: its weights
            are bad.
    """

    features: NDArray[np.float32] | None
    base: Action | None
    residual: Action
    gate: NDArray[np.float32]
    gate_open: bool
    human: Action | None
    decision: Decision
    command: SafeCommand | Hold
    commanded: Action
    request: ChunkRequest | None = None
    chunk_events: ChunkEvent = ChunkEvent.NONE
    chunk_delay_s: float = math.nan
    policy_failure: str | None = None
    residual_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class _Planned:
    features: NDArray[np.float32] | None
    chunk: Chunk | None
    asking: Asking
    request: ChunkRequest | None = None
    events: ChunkEvent = ChunkEvent.NONE
    delay_s: float = math.nan
    failure: str | None = None


class TickPipeline:
    """The stages between observation and arm. Owns no state of its own but the loaded policy.

    With `ahead` chunks are asked for ahead of time and arrive in `TickInputs.reply`; without it within the tick.
    `history` is how many ticks the residual sees.
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        arbiter: Arbiter,
        safety: SafetyGate,
        gate_enabled: bool,
        open_loop: bool,
        ahead: ChunkPlan | None = None,
        history: HistoryTicks = PRESENT,
    ) -> None:
        self.bundle, self.history = bundle, history
        self._remembers = history.longest > 1
        self._open_loop = open_loop
        self.actions = ActionSpace(bundle.manifest.action)
        self._arbiter, self.safety = arbiter, safety
        self._gate_enabled = gate_enabled
        self._no_action = np.zeros(self.actions.size, np.float32)
        self._no_action.setflags(write=False)
        self._execute_steps = bundle.manifest.execute_steps
        self._chunk_shape = (bundle.manifest.chunk_length, bundle.manifest.action.size)
        self._ahead = ahead

    def step(
        self, state: TickState, inputs: TickInputs, head: ResidualHead, stopwatch: Stopwatch | None = None
    ) -> tuple[TickState, TickOutputs]:
        """Run encode, act, residual, arbitrate and filter once.

        A hold without a usable observation drops the chunk: what was planned before it is out of date. A base policy
        that raises is as good as none for this tick.
        """
        lap = stopwatch.lap if stopwatch else _no_lap
        planned = self._propose(state, inputs, lap)
        features = planned.features
        base = None if planned.chunk is None else planned.chunk.at(inputs.index)
        lap("act")
        window, seen, proprio = None, features, inputs.observation.proprio
        if self._remembers and features is not None:
            window = next_window(self.history, state.window, inputs.index, features, proprio)
            seen, proprio = window.features, window.proprio
        residual, gate, gate_open = self._correct(inputs, seen, proprio, base, head)
        lap("residual")
        filter_state = state.filter
        if self._open_loop:
            filter_state = self.safety.anchored(filter_state, inputs.observation.state)
        if inputs.human.events and HumanEvent.ARM in inputs.human.events:
            filter_state = self.safety.rearm(filter_state, inputs.observation.state)
        if planned.events and ChunkEvent.FAULT in planned.events and not filter_state.latched:
            filter_state = replace(filter_state, latched=True, reasons=_fault_reason(inputs.reply))
        human_action = self._no_action
        if inputs.human.engaged:
            human_action = self.actions.from_human(
                inputs.human.twist,
                inputs.human.gripper,
                T_base_target=filter_state.T_base_tcp,
                gripper_width_m=filter_state.gripper_width_m,
            )
        voices = Voices(
            base=base,
            residual=residual,
            noise=inputs.noise,
            human=inputs.human,
            human_action=human_action,
            reset=inputs.reset,
            verdict=inputs.observation.verdict,
            overrun=inputs.overrun,
            filter_latched=filter_state.latched,
            now_s=inputs.now_s,
        )
        arbiter_state, decision = self._arbiter.step(state.arbiter, voices)
        lap("arbitrate")
        wanted = None
        if decision.action is not None:
            wanted = self.actions.command(
                decision.action,
                T_base_target=filter_state.T_base_tcp,
                gripper_width_m=filter_state.gripper_width_m,
                due_s=inputs.due_s,
            )
            if decision.source is Source.RESET:
                wanted = self.actions.righted(wanted, filter_state.T_base_tcp, self.safety.home_axis)
        after, command = self.safety.step(filter_state, inputs.observation.state, wanted)
        commanded = self.actions.executed(
            filter_state.T_base_tcp, after.T_base_tcp, filter_state.q_rad, after.q_rad, after.gripper_width_m
        )
        lap("filter")
        outputs = TickOutputs(
            features=features,
            base=base,
            residual=residual,
            gate=gate,
            gate_open=gate_open,
            human=self._arbiter.wish(voices) if inputs.human.engaged else None,
            decision=decision,
            command=command,
            commanded=commanded,
            request=planned.request,
            chunk_events=planned.events,
            chunk_delay_s=planned.delay_s,
            policy_failure=planned.failure,
            residual_failed=not math.isfinite(sum(residual.tolist())) and _finite(seen, proprio, base),
        )
        if window is not None and not acted(inputs, outputs):
            window = None
        return (
            TickState(arbiter=arbiter_state, filter=after, chunk=planned.chunk, asking=planned.asking, window=window),
            outputs,
        )

    def _propose(self, state: TickState, inputs: TickInputs, lap: Callable[[str], None]) -> _Planned:
        """Look and plan; a policy that raises gave nothing."""
        look = inputs.observation
        if look.verdict is not Verdict.FRESH or inputs.reset is not None:
            return self._planned(state, inputs, None)
        failure = "as logged" if inputs.policy_failed else None
        if failure is None:
            try:
                points = None if look.cloud is None else look.cloud.points
                features = self.bundle.encode(look.images, look.proprio, points)
                lap("encode")
                return self._planned(state, inputs, features)
            except PolicyError as error:
                failure = str(error)
        return replace(self._planned(state, inputs, None), failure=failure)

    def _planned(self, state: TickState, inputs: TickInputs, features: NDArray[np.float32] | None) -> _Planned:
        if self._ahead is not None:
            return self._plan_ahead(self._ahead, state, inputs, features)
        return _Planned(features=features, chunk=self._plan(state, inputs, features), asking=state.asking)

    def _plan(self, state: TickState, inputs: TickInputs, features: NDArray[np.float32] | None) -> Chunk | None:
        """Keep the chunk in force or ask for a fresh one.

        Fresh when it is used up to `execute_steps`, and on every tick that a person drives (in shadow), so that
        the base action beside a correction belongs to this very state and release hands back to a fresh chunk.
        """
        if features is None:
            return None
        chunk = state.chunk
        used = self._execute_steps if chunk is None else inputs.index - chunk.requested
        policy_drives = state.arbiter.previous is Source.POLICY and not inputs.human.engaged
        if chunk is not None and used < self._execute_steps and policy_drives:
            return chunk
        actions = self.bundle.act(features, inputs.observation.proprio)
        return Chunk(actions=actions, requested=inputs.index)

    def _plan_ahead(
        self, plan: ChunkPlan, state: TickState, inputs: TickInputs, features: NDArray[np.float32] | None
    ) -> _Planned:
        """Put what arrived into force, drop what is used up or out of date, and ask where it is time to.

        While the policy does not drive it is asked again as soon as it has answered, as `_plan` does.
        """
        asking, tick = state.asking, inputs.index
        if HumanEvent.ARM in inputs.human.events:
            asking = replace(asking, rejected=0)
        if features is None:
            dropped = ChunkEvent.DROPPED if asking.waits or state.chunk is not None else ChunkEvent.NONE
            late = ChunkEvent.NONE if inputs.reply is None else ChunkEvent.LATE
            return _Planned(features=None, chunk=None, asking=asking.without_request(), events=dropped | late)
        asking, new, events, delay_s = plan.answered(asking, inputs.reply, inputs.now_s, self._chunk_shape)
        chunk = state.chunk
        if new is not None:
            chunk = plan.spliced(chunk, new, tick) if self._follows_policy(state) else new
        if chunk is not None and chunk.at(tick) is None:
            chunk, events = None, events | ChunkEvent.USED_UP
        if asking.rejected >= MAX_REJECTED and ChunkEvent.REJECTED in events and not inputs.human.engaged:
            events |= ChunkEvent.FAULT
        request = None
        policy_drives = state.arbiter.previous is Source.POLICY and not inputs.human.engaged
        if not asking.waits and (not policy_drives or plan.due(chunk, asking, tick)):
            look = inputs.observation
            request = ChunkRequest(
                tick=tick, asked_s=inputs.now_s, features=features, proprio=look.proprio, images=look.images
            )
            asking, events = replace(asking, tick=tick, asked_s=inputs.now_s), events | ChunkEvent.ASKED
        return _Planned(features=features, chunk=chunk, asking=asking, request=request, events=events, delay_s=delay_s)

    def _follows_policy(self, state: TickState) -> bool:
        """Whether the arm moved by the old chunk, so that the new one needs a seam."""
        previous = state.arbiter.previous
        return previous is Source.POLICY or (previous is Source.HUMAN and self._arbiter.mode is AssistMode.NUDGE)

    def _correct(
        self,
        inputs: TickInputs,
        features: NDArray[np.float32] | None,
        proprio: NDArray[np.float32],
        base: Action | None,
        head: ResidualHead,
    ) -> tuple[Action, NDArray[np.float32], bool]:
        """Return the residual as it is added, the gate's two values (NaN without a gate) and whether it is open."""
        if features is None or base is None:
            return self._no_action, _UNKNOWN, False
        judged = self._gate_enabled and head.heads > 0
        residual, values = head.corrected(features, proprio, base, inputs.noise, judged=judged)
        if not judged:
            return residual, _UNKNOWN, True
        gate = values.min(axis=0)
        gate_open = bool(gate[1] >= gate[0]) or inputs.gate_forced
        return residual if gate_open else self._no_action, gate, gate_open


def acted(inputs: TickInputs, outputs: TickOutputs) -> bool:
    """Return whether somebody acted on what was seen at this tick, so that the next window reaches back to it.

    The learner says the same of a logged tick, see `policy.transitions`.
    """
    drove = outputs.decision.source in (Source.POLICY, Source.HUMAN) and not isinstance(outputs.command, Hold)
    if not drove or inputs.reset is not None or outputs.features is None or outputs.base is None:
        return False
    return _finite(outputs.features, inputs.observation.proprio, outputs.base, outputs.commanded)


class Stopwatch:
    """Collects how long each stage of a tick took [ms]."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def start(self) -> None:
        """Begin a tick."""
        self._stages = {}
        self._last_s = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End `stage`, which began at the lap before."""
        now_s = time.perf_counter()
        self._stages[stage] = self._stages.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s

    @property
    def stages_ms(self) -> dict[str, float]:
        """Stage -> milliseconds of the tick so far."""
        return self._stages


def _fault_reason(reply: ChunkReply | None) -> Reason:
    misshapen = reply is not None and (reply.kind is ReplyKind.MISSHAPEN or reply.actions is None)
    return Reason.FAULTED | (Reason.WRONG_SHAPE if misshapen else Reason.NOT_FINITE)


def _finite(*values: NDArray[np.float32] | None) -> bool:
    return all(array is not None and bool(np.isfinite(array).all()) for array in values)


def _no_lap(stage: str) -> None:
    pass

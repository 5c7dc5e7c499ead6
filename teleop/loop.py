"""The control loop: one tick on one screen, and an episode of ticks round it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from perception.observation import Observation
from perception.synchroniser import Synchroniser
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import EpisodeSpec, Row
from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import Hold, SafeCommand
from teleop.arbiter import ArbiterState, Source
from teleop.exploration import Exploration
from teleop.homing import Homing
from teleop.human_input import HumanCommand, HumanEvent, HumanInput
from teleop.judge import Judge
from teleop.recorder import Recorder
from teleop.tick import Stopwatch, TickInputs, TickOutputs, TickPipeline, TickState
from teleop.tick_row import fill_row, views
from teleop.tick_times import TickTimes
from teleop.weights_in_force import WeightsInForce

_SETTLE_TICKS = 2  # after the table was laid, until the frames show it
_OVERRUNS_TO_HOLD = 3
_LABELS = {
    HumanEvent.SUCCESS: Outcome.SUCCESS,
    HumanEvent.FAILURE: Outcome.FAILURE,
    HumanEvent.RERECORD: Outcome.RERECORD,
}
_ALL_LABELS = HumanEvent.SUCCESS | HumanEvent.FAILURE | HumanEvent.RERECORD


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One finished tick, for whoever watches (window, statistics)."""

    inputs: TickInputs
    outputs: TickOutputs
    after: TickState


class Watcher(Protocol):
    """Looks at the loop and must return within the slack it is given."""

    def tick(self, tick: Tick, slack_s: float) -> None:
        """See one finished tick."""
        ...

    def waiting(self, observation: Observation, human: HumanCommand, slack_s: float) -> None:
        """See the robot wait for the person to arm it."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopParts:
    """What a loop drives; all opened by the caller.

    Attributes:
        homing: None for an arm that plays a recording.
        judge: None where only the person labels.
        labels: whose word the human input's labels are.
        spec: layout of the log's rows.
        timeout_s: when an episode that nobody judged ends [s].
        reset_timeout_s: for how long homing may drive at a stretch before it is given up [s].
    """

    clock: Clock
    arm: Arm
    synchroniser: Synchroniser
    human: HumanInput
    pipeline: TickPipeline
    recorder: Recorder
    weights: WeightsInForce
    exploration: Exploration
    homing: Homing | None
    judge: Judge | None
    watcher: Watcher | None
    labels: LabelSource
    spec: EpisodeSpec
    period_s: float
    timeout_s: float
    reset_timeout_s: float


@dataclass
class EpisodeResult:
    """What became of one episode.

    Attributes:
        outcome: as recorded.
        ticks: ticks after the reset.
        reset_ticks: ticks of homing before them.
        skipped_ticks: ticks that did not run because one before them took too long.
        human_ticks: ticks after the reset that the person drove.
        interventions: how often the person took over after the reset.
        quit: True when the person closed the run.
    """

    outcome: EpisodeOutcome | None = None
    ticks: int = 0
    reset_ticks: int = 0
    skipped_ticks: int = 0
    human_ticks: int = 0
    interventions: int = 0
    quit: bool = False

    def count(self, tick: Tick, previous: Source) -> None:
        """Take one more tick into the counts."""
        source = tick.outputs.decision.source
        resetting = tick.inputs.reset is not None
        self.reset_ticks += resetting
        self.ticks += not resetting
        drives = source is Source.HUMAN and not resetting
        self.human_ticks += drives
        self.interventions += drives and previous is not Source.HUMAN
        self.skipped_ticks = tick.inputs.index + 1 - self.rows
        self.quit |= HumanEvent.QUIT in tick.inputs.human.events

    @property
    def rows(self) -> int:
        """Ticks that ran."""
        return self.ticks + self.reset_ticks


class ControlLoop:
    """Runs ticks against absolute deadlines, or in lock-step on a virtual clock."""

    def __init__(self, parts: LoopParts) -> None:
        self._parts = parts
        self._stopwatch = Stopwatch()
        self._row: Row = np.zeros((), parts.spec.row_dtype())
        self._views = views(self._row)
        self._row_waits = False
        self._carried = HumanEvent.NONE
        self._missed_in_row = 0
        self._skipped = 0  # ticks just before the present one that could not run
        self._deadline_s = parts.clock.now_s()
        self.times = TickTimes()
        self.state = TickState(arbiter=ArbiterState(), filter=parts.pipeline.safety.start(parts.arm.state()))
        # The state that a run starts in is latched: nothing moves before the person arms.

    def tick(self, index: int, human: HumanCommand, state: ArmState, *, resetting: bool) -> Tick:
        """Observe, propose, correct, arbitrate, filter, send, record: the way of one tick, start to end."""
        parts, watch = self._parts, self._stopwatch
        start_s, due_s = parts.clock.now_s(), self._deadline_s + parts.period_s
        observation = parts.synchroniser.observe(start_s, state)
        reset = parts.homing.action(state, self.state.filter) if resetting and parts.homing else None
        noise, gate_forced = parts.exploration.draw(parts.weights.head.scale, active=not resetting)
        inputs = TickInputs(
            index=index,
            now_s=start_s,
            due_s=due_s,
            observation=observation,
            human=human,
            reset=reset,
            noise=noise,
            gate_forced=gate_forced,
            overrun=self._missed_in_row >= _OVERRUNS_TO_HOLD,
        )
        watch.lap("observe")
        self.state, outputs = parts.pipeline.step(self.state, inputs, parts.weights.head, watch)
        self._send(outputs.command)
        watch.lap("send")
        end_s = parts.clock.now_s()
        missed = end_s > due_s
        self._missed_in_row = self._missed_in_row + 1 if missed else 0
        self._put_row()
        fill_row(
            self._views,
            parts.spec,
            inputs=inputs,
            outputs=outputs,
            after=self.state,
            residual_version=parts.weights.version,
            end_s=end_s,
            deadline_missed=missed,
            stages_ms=None if parts.clock.virtual else watch.stages_ms,
        )
        self._row_waits = True
        watch.lap("record")
        self.times.add(watch.stages_ms, missed=missed)
        return Tick(inputs=inputs, outputs=outputs, after=self.state)

    def run_episode(
        self, make_header: Callable[[TickState], EpisodeHeader], lay_table: Callable[[float], None]
    ) -> EpisodeResult:
        """Reset, run until somebody says how it ended, and hand the episode to the recorder.

        Args:
            make_header: what the file says of itself, from the state before the first tick.
            lay_table: called with the present time once the arm is at home; a recording begins to play at that time.
        """
        parts, result = self._parts, EpisodeResult()
        self._deadline_s = max(self._deadline_s, parts.clock.now_s())
        laid, settle = False, _SETTLE_TICKS
        if parts.homing is None:
            lay_table(self._deadline_s + parts.period_s)
            laid, settle = True, 0
            # A recording jumps to where it begins; nothing real moves with it.
            here, safety = parts.arm.state(), parts.pipeline.safety
            self.state = replace(self.state, filter=safety.rearm(safety.start(here), here))
        header = make_header(self.state)
        parts.recorder.begin(header)
        parts.exploration.begin_episode(header.episode)
        index = began = homing_ticks = 0
        while result.outcome is None:
            human, state = self._next_tick()
            passed = 1 + self._skipped if result.rows else 0
            index += passed
            if not laid and parts.homing and parts.homing.done(state):
                lay_table(self._deadline_s)
                laid = True
                if parts.judge:
                    parts.judge.reset()
            resetting = not laid or settle > 0
            settle -= laid
            if not resetting and result.ticks > 0:
                result.outcome = self._ending(human, state, index - began)
                if result.outcome is not None:
                    self._carried |= human.events & ~_ALL_LABELS  # no tick has heeded them
                    break
            previous = self.state.arbiter.previous
            tick = self.tick(index, human, state, resetting=resetting)
            began = index if resetting or result.ticks == 0 else began
            result.count(tick, previous)
            if parts.watcher:
                parts.watcher.tick(tick, self._slack_s())
            match tick.outputs.decision.source:
                case Source.RESET:
                    homing_ticks += max(1, passed)
                case Source.HUMAN:
                    homing_ticks = 0  # driven free, or out of the way
            result.outcome = self._stopped(tick) or self._lost(state, homing_ticks)
        self._end_row(result.outcome)
        self._come_to_rest()
        more = {"weights": parts.weights.taken_over(), "skipped_ticks": result.skipped_ticks}
        parts.recorder.end(result.outcome.model_copy(update=more))
        self.state = replace(self.state, chunk=None)
        return result

    @property
    def armed(self) -> bool:
        """True when the arm may move: the person armed it and nothing latched since."""
        return self.state.arbiter.armed and not self.state.filter.latched

    def wait_armed(self) -> bool:
        """Poll the person until they arm, without moving or recording; False when they quit instead."""
        self._deadline_s = self._parts.clock.now_s()
        while not self.armed and HumanEvent.ARM not in self._carried:
            human, state = self._next_tick()
            if HumanEvent.QUIT in human.events:
                return False
            self._carried |= human.events & HumanEvent.ARM
            if self._parts.watcher:
                observation = self._parts.synchroniser.observe(self._parts.clock.now_s(), state)
                self._parts.watcher.waiting(observation, human, self._slack_s())
        return True

    def _next_tick(self) -> tuple[HumanCommand, ArmState]:
        """Wait for the next deadline, then ask the arm and the person."""
        parts = self._parts
        parts.weights.refresh()
        self._deadline_s += parts.period_s
        late_s = parts.clock.now_s() - self._deadline_s
        # a tick that cannot be caught up is skipped, never run in a burst; its number is skipped, too
        self._skipped = int(late_s // parts.period_s) if late_s > parts.period_s else 0
        self._deadline_s += self._skipped * parts.period_s
        parts.clock.sleep_until(self._deadline_s)
        self._stopwatch.start()
        # The arm first: in simulation its state brings the world to now, and the person answers to what they see now.
        state = parts.arm.state()
        self._stopwatch.lap("state")
        human = parts.human.poll(parts.clock.now_s())
        if self._carried:
            human = replace(human, events=human.events | self._carried)
            self._carried = HumanEvent.NONE
        self._stopwatch.lap("observe")
        if HumanEvent.ARM in human.events:
            parts.arm.clear_fault()
            state = parts.arm.state()
            self._stopwatch.lap("state")
        return human, state

    def _send(self, command: SafeCommand | Hold) -> None:
        if isinstance(command, SafeCommand):
            self._parts.arm.send(command)
        else:
            self._parts.arm.hold()

    def _ending(self, human: HumanCommand, state: ArmState, periods: int) -> EpisodeOutcome | None:
        """Judge the scene that the tick before led to: the person's word, then the task's, then the clock's.

        Not when the person stops or the filter is latched: then ticks go on until the arm is at rest, see `_stopped`.
        """
        stops = bool(human.events & (HumanEvent.STOP | HumanEvent.QUIT))
        if stops or self.state.arbiter.stopped or self.state.filter.latched:
            return None
        for event, outcome in _LABELS.items():
            if event in human.events:
                return EpisodeOutcome(outcome=outcome, label_source=self._parts.labels)
        judged = self._parts.judge.outcome(state) if self._parts.judge else None
        if judged is not None:
            return EpisodeOutcome(outcome=judged, label_source=LabelSource.TASK)
        if periods >= round(self._parts.timeout_s / self._parts.period_s):
            return EpisodeOutcome(outcome=Outcome.TIMEOUT, label_source=LabelSource.NONE)
        return None

    def _stopped(self, tick: Tick) -> EpisodeOutcome | None:
        """Abort once the arm is at rest after a stop, a latched fault or the end of the run."""
        if isinstance(tick.outputs.command, SafeCommand):
            return None  # still braking within its limits
        if HumanEvent.QUIT in tick.inputs.human.events or tick.after.arbiter.stopped:
            return EpisodeOutcome(
                outcome=Outcome.ABORT, label_source=LabelSource.PERSON, reason="the person stopped the robot"
            )
        if tick.after.filter.latched:
            reason = tick.after.filter.reasons
            return EpisodeOutcome(
                outcome=Outcome.ABORT, label_source=LabelSource.NONE, reason=f"safety filter latched: {reason.name}"
            )
        return None

    def _lost(self, state: ArmState, homing_ticks: int) -> EpisodeOutcome | None:
        """Abort and disarm when homing does not get there: blocked, held, or refused by the filter now and then."""
        parts = self._parts
        if parts.homing is None or homing_ticks * parts.period_s < parts.reset_timeout_s:
            return None
        self.state = replace(self.state, arbiter=replace(self.state.arbiter, armed=False))
        reason = (
            f"reset: after {parts.reset_timeout_s:g} s the arm is {parts.homing.remaining(state)}; "
            "look what is in its way, then arm again"
        )
        return EpisodeOutcome(outcome=Outcome.ABORT, label_source=LabelSource.NONE, reason=reason)

    def _come_to_rest(self) -> None:
        """Brake within the limits after an episode: nobody sends anything until the next one.

        A filter left in motion would take the arm, standing by then, for one that still moves.
        """
        parts = self._parts
        while not (parts.arm.open_loop or self.state.filter.at_rest):
            self._deadline_s += parts.period_s
            parts.clock.sleep_until(self._deadline_s)
            after, command = parts.pipeline.safety.step(self.state.filter, parts.arm.state(), None)
            self.state = replace(self.state, filter=after)
            self._send(command)

    def _put_row(self) -> None:
        """Hand over the row of the tick before: only now is it known that the episode went on."""
        if self._row_waits:
            self._parts.recorder.put(self._row)
            self._row_waits = False

    def _end_row(self, outcome: EpisodeOutcome) -> None:
        """Write reward and ends into the last row: success pays 1, a timeout is cut short and not an end."""
        terminated = outcome.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
        self._row["rewards"] = float(outcome.outcome is Outcome.SUCCESS)
        self._row["terminated"] = terminated
        self._row["truncated"] = not terminated
        self._row["dones"] = 1
        self._put_row()

    def _slack_s(self) -> float:
        clock = self._parts.clock
        return self._deadline_s + self._parts.period_s - clock.now_s()

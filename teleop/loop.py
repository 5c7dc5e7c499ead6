"""The control loop: one tick on one screen, and an episode of ticks round it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from perception.observation import Verdict
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import Row
from robot.arm_state import ArmState
from robot.command import Hold, Reason, SafeCommand
from robot.errors import HardwareError
from teleop.arbiter import ArbiterState, Source
from teleop.chunk_plan import NOTHING_ASKED
from teleop.episode_result import EpisodeResult
from teleop.human_input import HumanCommand, HumanEvent
from teleop.loop_parts import LoopParts, Tick
from teleop.operator_messages import merged
from teleop.reward_watch import fill_reward
from teleop.tick import Stopwatch, TickInputs, TickState
from teleop.tick_row import fill_row, views
from teleop.tick_times import TickTimes

_SETTLE_TICKS = 2  # after the table was laid, until the frames show it
_OVERRUNS_TO_HOLD = 3
_LABELS = {
    HumanEvent.SUCCESS: Outcome.SUCCESS,
    HumanEvent.FAILURE: Outcome.FAILURE,
    HumanEvent.RERECORD: Outcome.RERECORD,
}
_ALL_LABELS = HumanEvent.SUCCESS | HumanEvent.FAILURE | HumanEvent.RERECORD


class ControlLoop:
    """Runs ticks against absolute deadlines, or in lock-step on a virtual clock."""

    def __init__(self, parts: LoopParts) -> None:
        self._parts = parts
        self._stopwatch = Stopwatch()
        self._row: Row = np.zeros((), parts.spec.row_dtype())
        self._views = views(self._row)
        self._rehearsed = views(np.zeros((), self._row.dtype))  # a row that nobody reads
        self._row_waits = False
        self._carried = HumanEvent.NONE
        self._missed_in_row = 0
        self._skipped = 0  # ticks just before the present one that could not run
        self._deadline_s = self._woke_s = parts.clock.now_s()
        self._last: tuple[TickInputs, TickState] | None = None
        self.times = TickTimes()
        self._arm_state = parts.arm.state()
        self._untold = False  # the loop stood still, and the person cannot know yet
        self._void = False  # an arm verb came meanwhile
        self._fault: str | None = None  # of the loop itself, or what the arm said to a command; until the arm verb
        self._step_s = 0.0  # what the last tick's stages took
        self.state = TickState(arbiter=ArbiterState(), filter=parts.pipeline.safety.start(self._arm_state))
        # The state that a run starts in is latched: nothing moves before the person arms.

    def tick(
        self, index: int, human: HumanCommand, state: ArmState, *, resetting: bool, laid_s: float = -math.inf
    ) -> Tick:
        """Observe, propose, correct, arbitrate, filter, send, record: the way of one tick, start to end.

        The tick resets, too, while the frames still show the table as it was before it was laid at `laid_s`.
        """
        parts, watch = self._parts, self._stopwatch
        start_s, due_s = parts.clock.now_s(), self._deadline_s + parts.period_s
        observation = parts.synchroniser.observe(start_s, state)
        if observation.verdict is Verdict.FRESH and observation.captured_s:
            resetting = resetting or min(observation.captured_s.values()) < laid_s
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
            reply=parts.chunks.poll(start_s) if parts.chunks else None,
        )
        watch.lap("observe")
        self._last = inputs, self.state
        self.state, outputs = parts.pipeline.step(self.state, inputs, parts.weights.head, watch)
        self._send(outputs.command, due_s)
        if outputs.residual_failed:
            parts.weights.distrust()
        if parts.chunks and outputs.request:
            parts.chunks.ask(outputs.request)
        watch.lap("send")
        reward = None
        if parts.reward:
            reward = parts.reward.see(inputs)
            watch.lap("reward")
        end_s = parts.clock.now_s()
        missed = end_s > due_s
        late_s = self._woke_s - self._deadline_s + self._skipped * parts.period_s
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
        if reward is not None:
            fill_reward(self._views, reward)
        self._row_waits = True
        watch.lap("record")
        oldest_s = float(np.min(list(observation.captured_s.values()) or [math.nan]))  # NaN where one is missing
        rehearsed = (ms for stage, ms in watch.stages_ms.items() if stage != "reward")
        self._step_s = 1e-3 * sum(rehearsed)
        self.times.add(watch.stages_ms, missed=missed, late_s=late_s, age_s=end_s - oldest_s)
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
            # A recording or an environment jumps to where it begins; nothing real moves with it.
            here, safety = parts.arm.state(), parts.pipeline.safety
            self.state = replace(self.state, filter=safety.rearm(safety.start(here), here))
        header = make_header(self.state)
        parts.recorder.begin(header)
        parts.exploration.begin_episode(header.episode)
        if parts.reward:
            parts.reward.reset()
        if parts.chunks:
            parts.chunks.forget()  # tick numbers begin anew
        ticks_before = len(self.times)
        outcome = None
        try:
            outcome = self._ticks(result, lay_table, laid=laid, settle=settle)
            self._come_to_rest()
        except HardwareError as error:
            result.failure = error
            self._give_up()
            if outcome is None:
                outcome = EpisodeOutcome(outcome=Outcome.ABORT, label_source=LabelSource.NONE, reason=str(error))
        self._end_row(outcome)
        more: dict[str, object] = {"weights": parts.weights.taken_over(), "skipped_ticks": result.skipped_ticks}
        if not parts.clock.virtual:
            more["timing"] = self.times.summary(ticks_before)
        result.outcome = outcome
        parts.recorder.end(outcome.model_copy(update=more))
        self.state = replace(self.state, chunk=None, asking=NOTHING_ASKED, window=None)
        return result

    def _ticks(
        self, result: EpisodeResult, lay_table: Callable[[float], None], *, laid: bool, settle: int
    ) -> EpisodeOutcome:
        """Run the ticks of an episode and return how it ended. Raises HardwareError when the run cannot go on."""
        parts = self._parts
        index = began = homing_ticks = 0
        laid_s = -math.inf
        while True:
            human, state = self._next_tick()
            passed = 1 + self._skipped if result.rows else 0
            index += passed
            if not laid and parts.homing and parts.homing.done(state):
                lay_table(self._deadline_s)
                laid, laid_s = True, self._deadline_s
                if parts.judge:
                    parts.judge.reset()
            resetting = not laid or settle > 0
            settle -= laid
            if not resetting and result.ticks > 0:
                outcome = self._ending(human, state, index - began)
                if outcome is not None:
                    self._carried |= human.events & ~_ALL_LABELS  # no tick has heeded them
                    return outcome
            previous = self.state.arbiter.previous
            tick = self.tick(index, human, state, resetting=resetting, laid_s=laid_s)
            began = index if resetting or result.ticks == 0 else began
            result.count(tick, previous)
            if parts.watcher:
                parts.watcher.tick(tick)
            match tick.outputs.decision.source:
                case Source.RESET:
                    homing_ticks += max(1, passed)
                case Source.HUMAN:
                    homing_ticks = 0  # driven free, or out of the way
            outcome = self._stopped(tick) or self._lost(state, homing_ticks)
            if outcome is not None:
                return outcome

    @property
    def armed(self) -> bool:
        """True when the arm may move: the person armed it and nothing latched since."""
        return self.state.arbiter.armed and not self.state.filter.latched

    def wait_armed(self, ask: Callable[[], None] = lambda: None) -> bool:
        """Poll the person until they arm, without moving or recording; False when they quit instead.

        `ask` is called when an arm verb did not count, for a stand-in that says it only once.
        """
        self._deadline_s = self._parts.clock.now_s()
        while not self.armed and HumanEvent.ARM not in self._carried:
            self._void = False
            human, state = self._next_tick(arming=True)
            if HumanEvent.QUIT in human.events:
                return False
            self._carried |= human.events & HumanEvent.ARM
            if self._void:
                ask()
            if self._parts.watcher:
                observation = self._parts.synchroniser.observe(self._parts.clock.now_s(), state)
                self._parts.watcher.waiting(observation, human)
        return True

    def _next_tick(self, *, arming: bool = False) -> tuple[HumanCommand, ArmState]:
        """Wait for the next deadline, then ask the arm and the person.

        The arm verb clears faults once, in the tick that heeds it: not already while `arming` waits for it.
        """
        parts = self._parts
        parts.weights.refresh()
        self._deadline_s += parts.period_s
        self._skipped = self._skip()
        if parts.rehearse_s:
            self._rehearse()
        parts.clock.sleep_until(self._deadline_s)
        self._skipped += self._skip()  # whoever stopped this process did not ask what it was doing
        if self._skipped * parts.period_s > parts.stall_s:
            stood_s = self._skipped * parts.period_s
            self._stood_still(f"for {stood_s:.1f} s (limit {parts.stall_s:g} s); look at the robot, then arm again")
        self._woke_s = parts.clock.now_s()
        self._stopwatch.start()
        # The arm first: in simulation its state brings the world to now, and the person answers to what they see now.
        parts.health()
        state = self._read_arm()
        if parts.task_reward and self._row_waits:
            self._row["tick/task_reward"] = parts.task_reward()
        self._stopwatch.lap("state")
        human = parts.human.poll(parts.clock.now_s())
        if self._carried:
            human = replace(human, events=merged(self._carried, human.events))
            self._carried = HumanEvent.NONE
        if self._untold:
            # pressed before anybody was told that the loop had stood still, so it is no answer to that
            self._void = HumanEvent.ARM in human.events
            human = replace(human, events=human.events & ~HumanEvent.ARM)
            self._untold = False
        self._stopwatch.lap("observe")
        if HumanEvent.ARM in human.events and not arming:
            self._fault = None
            parts.arm.clear_fault()
            state = self._read_arm()
            self._stopwatch.lap("state")
        return human, state

    def _skip(self) -> int:
        """Leave out the ticks that cannot be caught up, numbers and all, and return how many: never run in a burst."""
        period_s = self._parts.period_s
        late_s = self._parts.clock.now_s() - self._deadline_s
        skipped = int(late_s // period_s) if late_s > period_s else 0
        self._deadline_s += skipped * period_s
        return skipped

    def _rehearse(self) -> None:
        """Wake before the deadline, do the last tick's work once more, keep nothing of it, and wait on one's feet.

        The stages are pure, so nothing comes of it but that code and data are in the caches and the core is awake: a
        tick out of a sleep took twice as long as one that follows another (measured).
        """
        parts, clock = self._parts, self._parts.clock
        clock.sleep_until(self._deadline_s - parts.rehearse_s)
        if self._last is not None and clock.now_s() + 1.2 * self._step_s < self._deadline_s:
            inputs, state = self._last
            parts.synchroniser.rehearse(clock.now_s())
            after, outputs = parts.pipeline.step(state, inputs, parts.weights.head)
            fill_row(
                self._rehearsed,
                parts.spec,
                inputs=inputs,
                outputs=outputs,
                after=after,
                residual_version=parts.weights.version,
                end_s=self._deadline_s,
                deadline_missed=False,
                stages_ms=self._stopwatch.stages_ms,
            )
        while not clock.virtual and clock.now_s() < self._deadline_s:
            pass

    def _read_arm(self) -> ArmState:
        """Return the arm's state; one that cannot be had is the last one with a fault, which latches the filter."""
        fault = self._fault
        try:
            self._arm_state = self._parts.arm.state()
        except HardwareError as error:
            fault = fault or str(error)
        return self._arm_state if fault is None else replace(self._arm_state, fault=self._arm_state.fault or fault)

    def _send(self, command: SafeCommand | Hold, due_s: float) -> None:
        """Give the arm its command; one that it does not take is a fault at the next tick.

        So is one that comes more than a period after it was to be reached: this process stood still after it had
        looked, and neither the scene nor the person need be as they were.
        """
        late_s = self._parts.clock.now_s() - due_s
        try:
            if late_s > self._parts.period_s:
                self._stood_still(f"for {late_s:.2f} s within a tick; arm again")
                self._parts.arm.hold()
            elif isinstance(command, SafeCommand):
                self._parts.arm.send(command)
            else:
                self._parts.arm.hold()
        except HardwareError as error:
            self._fault = str(error)

    def _stood_still(self, how: str) -> None:
        self._fault = self._fault or f"the loop stood still {how}"
        self._untold = True

    def _give_up(self) -> None:
        """Hold and disarm: the run ends, and what still hears a word is told to stop."""
        self.state = replace(self.state, arbiter=replace(self.state.arbiter, armed=False))
        self._send(Hold(reasons=Reason.ARM_FAULT, latched=True), math.inf)

    def _ending(self, human: HumanCommand, state: ArmState, periods: int) -> EpisodeOutcome | None:
        """Judge the scene that the tick before led to: the person's word, the task's or the model's, the clock's.

        Not when the person stops or the filter is latched: then ticks go on until the arm is at rest, see `_stopped`.
        """
        if self.state.arbiter.stopped or self.state.filter.latched:
            return None
        if human.events:
            if human.events & (HumanEvent.STOP | HumanEvent.QUIT):
                return None
            for event, outcome in _LABELS.items():
                if event in human.events:
                    return EpisodeOutcome(outcome=outcome, label_source=self._parts.labels)
        judged = self._parts.judge.outcome(state) if self._parts.judge else None
        if judged is not None:
            return EpisodeOutcome(outcome=judged, label_source=LabelSource.TASK)
        if self._parts.reward and self._parts.reward.judges and self._parts.reward.fired:
            return EpisodeOutcome(outcome=Outcome.SUCCESS, label_source=LabelSource.REWARD_MODEL)
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
            reason = f"safety filter latched: {tick.after.filter.reasons.name}"
            if tick.inputs.observation.state.fault:
                reason += f" ({tick.inputs.observation.state.fault})"
            return EpisodeOutcome(outcome=Outcome.ABORT, label_source=LabelSource.NONE, reason=reason)
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
            self._skip()
            parts.health()
            after, command = parts.pipeline.safety.step(self.state.filter, self._read_arm(), None)
            self.state = replace(self.state, filter=after)
            self._send(command, self._deadline_s + parts.period_s)

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

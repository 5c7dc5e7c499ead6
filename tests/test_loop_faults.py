"""The loop when ticks come late, when it stood still, when the arm fails: what is held, latched, and told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.episode_header import Outcome
from robot.arm_state import ArmState
from teleop.arbiter import HoldReason, Source
from teleop.human_input import HumanCommand, HumanEvent
from tests.loop_bench import PERIOD_S, TIMEOUT_S, LoopBench, says, when
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("loop") / "bundle")


@pytest.fixture
def bench(bundle: Path) -> Iterator[LoopBench]:
    with LoopBench(bundle) as bench:
        assert bench.loop.wait_armed()
        yield bench


def test_deadlines_are_absolute_and_a_late_tick_is_skipped_not_caught_up_in_a_burst(bench: LoopBench) -> None:
    durations = iter([0.0] * 3 + [0.13] + [0.0] * 3 + [0.07] + [0.0] * 40)
    free = lambda: bench.person.free > 0  # noqa: E731
    bench.arm.takes_s = lambda: next(durations) if free() else 0.0
    bench.episode()
    ticks = [tick for tick in bench.ticks if tick.inputs.reset is None]
    due_s = np.array([tick.inputs.due_s for tick in ticks])
    start_s = np.array([tick.inputs.now_s for tick in ticks])
    steps = np.diff(due_s) / PERIOD_S
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)  # all on one grid
    assert np.round(steps).astype(int).tolist().count(2) == 1  # one tick was skipped
    assert set(np.round(steps).astype(int)) == {1, 2}
    assert np.diff(start_s).min() > 0.0
    quick = np.diff(start_s) < PERIOD_S - 1e-6
    assert not (quick[1:] & quick[:-1]).any()  # never two in a row
    assert start_s[-1] == pytest.approx(due_s[-1] - PERIOD_S)  # and the grid is met again
    # the log shows the gap where it was, and the episode is whole for all that
    index = np.array([int(row["tick/index"]) for row in bench.recorder.rows])
    assert index[0] == 0
    np.testing.assert_array_equal(np.diff(index[-len(ticks) :]), np.round(steps))
    assert (np.diff(index[: -len(ticks) + 1]) == 1).all()
    (outcome,) = bench.recorder.outcomes
    assert (outcome.skipped_ticks, outcome.dropped_ticks, outcome.complete) == (1, 0, True)


def test_timeout_is_of_the_time_that_passed_skipped_ticks_included(bench: LoopBench) -> None:
    durations = iter([0.0] * 3 + [0.33] + [0.0] * 40)
    bench.arm.takes_s = lambda: next(durations) if bench.person.free > 0 else 0.0
    result = bench.episode()
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.TIMEOUT
    assert result.skipped_ticks == 5
    assert result.ticks == round(TIMEOUT_S / PERIOD_S) - 5


def test_three_overruns_in_a_row_hold_for_a_tick(bench: LoopBench) -> None:
    durations = iter([0.06] * 3 + [0.0] * 40)
    bench.arm.takes_s = lambda: next(durations) if bench.person.free > 0 else 0.0
    bench.episode()
    ticks = [tick for tick in bench.ticks if tick.inputs.reset is None]
    reasons = [tick.outputs.decision.reason for tick in ticks]
    assert reasons.count(HoldReason.OVERRUN) == 1
    held = reasons.index(HoldReason.OVERRUN)
    missed = [bool(row["tick/deadline_missed"]) for row in bench.free_rows]
    assert missed[held - 3 : held + 1] == [True, True, True, False]
    assert sum(missed) == 3
    assert bench.loop.times.deadline_misses == 3
    assert ticks[held + 1].outputs.decision.source is Source.POLICY


def test_an_arm_whose_state_cannot_be_had_is_a_latched_fault_until_the_person_arms(bench: LoopBench) -> None:
    def lose(free: int) -> HumanCommand:
        bench.arm.gone = "servo: arm state is 120 ms old" if free >= 3 else None
        return says()

    result = bench.episode(lose)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "servo: arm state is 120 ms old" in (result.outcome.reason or "")
    assert result.failure is None
    faults = [bool(row["tick/arm_fault"]) for row in bench.free_rows]
    assert faults.index(True) == 4
    assert all(bool(row["tick/latched"]) for row in bench.free_rows[4:])
    assert not bench.loop.armed
    # it does not come back by itself, and not before the arm is there again
    bench.arm.gone = None
    assert not bench.loop.armed
    bench.person.waits_for = [says(HumanEvent.ARM)]
    assert bench.loop.wait_armed()
    again = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert again.outcome is not None
    assert again.outcome.outcome is Outcome.SUCCESS


def test_an_arm_that_takes_no_command_is_a_latched_fault(bench: LoopBench) -> None:
    def deafen(free: int) -> HumanCommand:
        bench.arm.deaf = "servo: it takes no orders" if free >= 2 else None
        return says()

    result = bench.episode(deafen)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "servo: it takes no orders" in (result.outcome.reason or "")
    assert [bool(row["tick/arm_fault"]) for row in bench.free_rows][:4] == [False, False, False, True]
    assert not bench.loop.armed


def test_a_run_that_cannot_go_on_aborts_the_episode_disarms_and_keeps_what_was_recorded(bench: LoopBench) -> None:
    def break_down(free: int) -> HumanCommand:
        bench.unfit = "servo ended by signal 9; look at the arm" if free >= 4 else None
        return says()

    result = bench.episode(break_down)
    assert str(result.failure) == "servo ended by signal 9; look at the arm"
    (outcome,) = bench.recorder.outcomes
    assert outcome.outcome is Outcome.ABORT
    assert outcome.reason == "servo ended by signal 9; look at the arm"
    assert outcome.complete
    assert not bench.loop.armed
    assert bench.arm.commands[-1] is None  # the last word to the arm is to hold
    last = bench.recorder.rows[-1]
    assert (bool(last["truncated"]), bool(last["terminated"])) == (True, False)
    assert len(bench.recorder.rows) == len(bench.ticks)


def test_a_run_that_breaks_down_while_it_comes_to_rest_keeps_the_label(bench: LoopBench) -> None:
    def label(free: int) -> HumanCommand:
        if free == 3:
            bench.unfit = "the supervisor is gone"  # heard when the arm, still moving, is brought to rest
            return says(HumanEvent.SUCCESS)
        return says(drives=free > 0)

    result = bench.episode(label)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.SUCCESS
    assert str(result.failure) == "the supervisor is gone"
    assert bool(bench.recorder.rows[-1]["terminated"])


def test_after_a_long_stop_nothing_moves_before_the_person_arms_again(bench: LoopBench) -> None:
    bench.loop._parts = replace(bench.loop._parts, stall_s=0.3)
    bench.arm.takes_s = lambda: 0.45 if bench.person.free == 3 else 0.0
    result = bench.episode()
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "the loop stood still for 0.4 s (limit 0.3 s)" in (result.outcome.reason or "")
    assert not bench.loop.armed
    bench.person.waits_for = [says(HumanEvent.ARM)]
    bench.arm.takes_s = lambda: 0.0
    assert bench.loop.wait_armed()
    again = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert again.outcome is not None
    assert again.outcome.outcome is Outcome.SUCCESS


def test_a_command_of_a_tick_that_was_stopped_in_its_middle_is_never_sent(bench: LoopBench) -> None:
    stopped: list[int] = []

    def stop(free: int) -> HumanCommand:
        if free == 3 and not stopped:  # after the arm was read, before the command goes out
            stopped.append(len(bench.arm.commands))
            bench.clock.sleep_until(bench.clock.now_s() + 0.4)
        return says(drives=True) if free > 0 else says()

    result = bench.episode(stop)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "stood still for 0.35 s within a tick" in (result.outcome.reason or "")
    assert bench.arm.commands[stopped[0]] is None  # a hold in place of the move
    assert not bench.loop.armed


def test_arming_while_the_loop_stood_still_is_no_answer_to_that(bench: LoopBench) -> None:
    bench.loop._parts = replace(bench.loop._parts, stall_s=0.3)
    bench.arm.takes_s = lambda: 0.45 if bench.person.free == 3 else 0.0
    result = bench.episode(when(t4=says(HumanEvent.ARM)))
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "stood still" in (result.outcome.reason or "")
    assert not bench.loop.armed
    assert bench.arm.commands[-1] is None


def test_arming_while_a_tick_was_stopped_in_its_middle_is_no_answer_to_that(bench: LoopBench) -> None:
    polls: list[int] = []

    def stop(free: int) -> HumanCommand:
        polls.append(free)
        if free == 3 and polls.count(3) == 1:
            bench.clock.sleep_until(bench.clock.now_s() + 0.4)
        after = polls[-2:] == [3, 4]  # the poll after the standstill
        return says(HumanEvent.ARM if after else HumanEvent.NONE, drives=0 < free < 4)

    result = bench.episode(stop)
    assert 4 in polls
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "within a tick" in (result.outcome.reason or "")
    assert not bench.loop.armed


def test_a_stand_in_is_asked_again_when_its_arm_verb_came_in_a_standstill(bench: LoopBench) -> None:
    bench.episode(when(t2=says(HumanEvent.STOP)))
    bench.loop._parts = replace(bench.loop._parts, stall_s=0.3)
    asked: list[bool] = []

    def ask() -> None:
        asked.append(bench.loop.armed)
        bench.person.waits_for = [says(HumanEvent.ARM)]

    read = bench.arm.state

    def slow() -> ArmState:
        if len(bench.person.waits_for) == 2:
            bench.clock.sleep_until(bench.clock.now_s() + 0.45)
        return read()

    bench.arm.state = slow  # type: ignore[method-assign]
    bench.person.waits_for = [says(), says(), says(HumanEvent.ARM)]
    assert bench.loop.wait_armed(ask)
    assert asked == [False]
    again = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert again.outcome is not None
    assert again.outcome.outcome is Outcome.SUCCESS


def test_one_arm_verb_clears_faults_once_and_not_while_it_is_waited_for(bench: LoopBench) -> None:
    cleared: list[int] = []
    clear = bench.arm.clear_fault
    bench.arm.clear_fault = lambda: (cleared.append(len(bench.ticks)), clear())[1]  # type: ignore[method-assign]
    bench.episode(when(t2=says(HumanEvent.STOP)))
    cleared.clear()
    bench.person.waits_for = [says(), says(HumanEvent.ARM)]
    assert bench.loop.wait_armed()
    assert cleared == []
    bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert cleared == [0]


def test_an_arm_verb_that_waited_is_void_when_the_person_stops(bench: LoopBench) -> None:
    bench.person.arms = False
    bench.person.waits_for = [says(HumanEvent.ARM), says(HumanEvent.STOP)]
    assert bench.loop.wait_armed()
    result = bench.episode()
    assert (result.ticks, bench.loop.armed) == (0, False)


def test_rehearsal_leaves_ticks_on_time_and_their_values_as_they_are(tmp_path: Path) -> None:
    with LoopBench(make_tiny_bundle(tmp_path / "bundle")) as plain:
        plain.episode(when(t5=says(HumanEvent.SUCCESS)))
    with LoopBench(make_tiny_bundle(tmp_path / "again")) as rehearsed:
        rehearsed.loop._parts = replace(rehearsed.loop._parts, rehearse_s=0.003)
        rehearsed.episode(when(t5=says(HumanEvent.SUCCESS)))
    assert len(plain.recorder.rows) == len(rehearsed.recorder.rows)
    for one, other in zip(plain.recorder.rows, rehearsed.recorder.rows, strict=True):
        for name in ("actions", "tick/base", "tick/commanded_q", "tick/start_s", "tick/frame_id"):
            np.testing.assert_array_equal(one[name], other[name])

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from robot.command import Reason
from teleop.arbiter import HoldReason, Source
from teleop.human_input import HumanCommand, HumanEvent
from tests.loop_bench import PERIOD_S, RESET_TIMEOUT_S, TIMEOUT_S, LoopBench, says, when
from tests.tick_bench import head
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("loop") / "bundle")


@pytest.fixture
def bench(bundle: Path) -> Iterator[LoopBench]:
    with LoopBench(bundle) as bench:
        assert bench.loop.wait_armed()
        yield bench


def ends(bench: LoopBench) -> list[tuple[float, int, int, int]]:
    return [
        (float(row["rewards"]), int(row["terminated"]), int(row["truncated"]), int(row["dones"]))
        for row in bench.recorder.rows
    ]


@pytest.mark.parametrize(
    ("event", "outcome", "last"),
    [
        (HumanEvent.SUCCESS, Outcome.SUCCESS, (1.0, 1, 0, 1)),
        (HumanEvent.FAILURE, Outcome.FAILURE, (0.0, 1, 0, 1)),
        (HumanEvent.RERECORD, Outcome.RERECORD, (0.0, 0, 1, 1)),
    ],
)
def test_label_ends_the_episode_on_the_row_that_led_to_it(
    bench: LoopBench, event: HumanEvent, outcome: Outcome, last: tuple[float, int, int, int]
) -> None:
    result = bench.episode(when(t5=says(event)))
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (outcome, LabelSource.PERSON)
    assert result.ticks == 5
    assert ends(bench)[-1] == last
    assert set(ends(bench)[:-1]) == {(0.0, 0, 0, 0)}
    assert len(bench.recorder.rows) == result.ticks + result.reset_ticks
    assert bench.recorder.outcomes == [result.outcome]


def test_timeout_is_cut_short_and_no_end(bench: LoopBench) -> None:
    result = bench.episode()
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.TIMEOUT, LabelSource.NONE)
    assert result.ticks == round(TIMEOUT_S / PERIOD_S)
    assert ends(bench)[-1] == (0.0, 0, 1, 1)


def test_task_ends_the_episode_where_nobody_says_anything(bench: LoopBench) -> None:
    bench.judge.at = {4: Outcome.SUCCESS}
    result = bench.episode()
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.SUCCESS, LabelSource.TASK)
    assert bench.judge.resets == 1


def test_the_persons_word_goes_before_the_tasks(bench: LoopBench) -> None:
    bench.judge.at = {4: Outcome.FAILURE}
    result = bench.episode(when(t4=says(HumanEvent.SUCCESS)))
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.SUCCESS, LabelSource.PERSON)


def test_stop_brakes_within_the_limits_and_then_aborts(bench: LoopBench) -> None:
    result = bench.episode(lambda free: says(HumanEvent.STOP if free == 5 else HumanEvent.NONE, drives=0 < free < 6))
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "person stopped" in result.outcome.reason
    speeds = np.array([np.linalg.norm(row["tick/filter_velocity"][:3]) for row in bench.free_rows])
    assert speeds[4] > 0.2
    assert (np.diff(speeds[4:]) < 0.0).all()
    limit = bench.rig.station.safety.max_acceleration_m_s2 * PERIOD_S
    assert np.abs(np.diff(speeds)).max() <= limit + 1e-9
    assert speeds[-1] == 0.0
    assert bench.free_rows[-1]["tick/held"] == 1
    assert bench.arm.commands[-1] is None
    assert ends(bench)[-1] == (0.0, 0, 1, 1)
    assert not bench.loop.armed


@pytest.mark.parametrize("judged", [HumanEvent.SUCCESS, HumanEvent.FAILURE | HumanEvent.RERECORD, HumanEvent.NONE])
def test_stop_wins_over_every_label_and_the_task_in_the_same_tick(bench: LoopBench, judged: HumanEvent) -> None:
    bench.judge.at = dict.fromkeys(range(3, 12), Outcome.SUCCESS)
    result = bench.episode(
        lambda free: says(HumanEvent.STOP | judged if free == 2 else HumanEvent.NONE, drives=0 < free < 3)
    )
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert bench.loop.state.filter.at_rest


def test_after_a_stop_nothing_moves_until_the_person_arms(bench: LoopBench) -> None:
    bench.episode(when(t2=says(HumanEvent.STOP)))
    commands = len(bench.arm.commands)
    bench.person.waits_for = [says(), says(drives=True), says(HumanEvent.SUCCESS), says(HumanEvent.ARM)]
    assert bench.loop.wait_armed()
    assert len(bench.arm.commands) == commands
    assert not bench.person.waits_for
    # the arm verb belongs to the first tick of the next episode
    bench.episode(when(t3=says(HumanEvent.SUCCESS)))
    assert HumanEvent(int(bench.recorder.rows[0]["tick/events"])) == HumanEvent.ARM
    assert Source(int(bench.recorder.rows[0]["tick/source"])) is Source.RESET


def test_robot_waits_disarmed_and_shows_that(bundle: Path) -> None:
    with LoopBench(bundle) as bench:
        bench.person.arms = False
        bench.person.waits_for = [says(drives=True)] * 3 + [says(HumanEvent.ARM)]
        assert not bench.loop.armed
        assert bench.loop.wait_armed()
        assert bench.waited == 4
        assert bench.arm.commands == []


def test_quit_while_waiting_ends_the_run(bundle: Path) -> None:
    with LoopBench(bundle) as bench:
        bench.person.arms = False
        bench.person.waits_for = [says(), says(HumanEvent.QUIT)]
        assert not bench.loop.wait_armed()


def test_quit_in_an_episode_brakes_aborts_and_is_told(bench: LoopBench) -> None:
    result = bench.episode(lambda free: says(HumanEvent.QUIT if free == 4 else HumanEvent.NONE, drives=0 < free < 5))
    assert result.quit
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert bench.loop.state.filter.at_rest


def test_arm_is_at_rest_between_two_episodes(bench: LoopBench) -> None:
    bench.episode(lambda free: says(HumanEvent.SUCCESS if free == 6 else HumanEvent.NONE, drives=free > 0))
    assert np.linalg.norm(bench.recorder.rows[-1]["tick/filter_velocity"][:3]) > 0.2  # it drove to the last
    assert bench.loop.state.filter.at_rest
    assert bench.arm.commands[-1] is None
    assert bench.loop.armed
    assert len(bench.recorder.rows) == len(bench.ticks)  # the braking is of no episode


def test_latched_fault_aborts_the_episode_and_says_why(bench: LoopBench) -> None:
    def fault(free: int) -> object:
        if free == 3:
            bench.rig.arm.fail("reflex")  # type: ignore[attr-defined]
        return says()

    result = bench.episode(fault)  # type: ignore[arg-type]
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.ABORT, LabelSource.NONE)
    assert Reason.ARM_FAULT.name in result.outcome.reason
    assert not bench.loop.armed
    bench.person.waits_for = [says(HumanEvent.ARM)]
    assert bench.loop.wait_armed()
    assert bench.rig.arm.state().fault == "reflex"  # until a tick heeds the arm verb
    result = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert bench.rig.arm.state().fault is None
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.SUCCESS


def test_table_is_laid_once_the_arm_is_home_and_the_episode_begins_after_it_shows(bench: LoopBench) -> None:
    result = bench.episode(when(t3=says(HumanEvent.SUCCESS)))
    assert len(bench.laid_s) == 1
    resets = [tick for tick in bench.ticks if tick.inputs.reset is not None]
    assert len(resets) == result.reset_ticks
    assert [tick.inputs.reset is None for tick in bench.ticks] == [False] * len(resets) + [True] * 3
    free_s = bench.ticks[len(resets)].inputs.now_s
    assert free_s - bench.laid_s[0] == pytest.approx(2 * PERIOD_S)
    captured_s = bench.ticks[len(resets)].inputs.observation.captured_s
    assert min(captured_s.values()) > bench.laid_s[0]
    state = bench.ticks[len(resets)].inputs.observation.state
    np.testing.assert_allclose(state.T_base_tcp[:3, 3], bench.rig.T_base_home[:3, 3], atol=5e-3)


def test_labels_during_the_reset_are_not_of_the_next_episode(bench: LoopBench) -> None:
    result = bench.episode(lambda free: says(HumanEvent.SUCCESS if free == 0 else HumanEvent.NONE))
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.TIMEOUT


def test_person_drives_free_an_arm_that_goes_home(bench: LoopBench) -> None:
    bench.episode(when(t1=says(HumanEvent.FAILURE)))
    bench.person.waits_for = [says(drives=True)] * 8
    result = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    sources = [tick.outputs.decision.source for tick in bench.ticks]
    assert sources[:8] == [Source.HUMAN] * 8
    assert sources[8] is Source.RESET
    assert (result.human_ticks, result.interventions) == (0, 0)
    assert result.reset_ticks > 10


def away_from_home(bench: LoopBench) -> None:
    bench.episode(lambda free: says(HumanEvent.FAILURE if free == 12 else HumanEvent.NONE, drives=0 < free < 12))


def endless(free: int) -> HumanCommand:
    """Polled only by a reset that went on for longer than the test foresaw."""
    pytest.fail("the reset does not end")


def test_arm_that_does_not_get_home_ends_in_a_fault_within_the_stated_time(bench: LoopBench) -> None:
    away_from_home(bench)
    bench.arm.stuck = True
    bench.person.waits_for = [says()] * 400
    result = bench.episode(endless)
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.ABORT, LabelSource.NONE)
    assert (result.ticks, result.reset_ticks) == (0, round(RESET_TIMEOUT_S / PERIOD_S))
    assert result.outcome.reason is not None
    assert result.outcome.reason.startswith("reset: after 5 s the arm is ")
    assert result.outcome.reason.endswith("open 0 mm only; look what is in its way, then arm again")
    assert not bench.loop.armed
    assert bench.loop.state.filter.at_rest
    assert ends(bench)[-1] == (0.0, 0, 1, 1)
    bench.arm.stuck = False
    bench.person.waits_for = [says(HumanEvent.ARM)]
    assert bench.loop.wait_armed()
    result = bench.episode(when(t2=says(HumanEvent.SUCCESS)))
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.SUCCESS


def test_time_in_which_the_person_drives_or_holds_is_not_homings(bench: LoopBench) -> None:
    away_from_home(bench)
    bench.arm.stuck = True
    most = round(RESET_TIMEOUT_S / PERIOD_S) - 1
    hold = [says(HumanEvent.HOLD)] + [says()] * 200 + [says(HumanEvent.HOLD)]
    bench.person.waits_for = [says()] * most + [says(drives=True)] * 3 + [says()] * (most - 1) + hold + [says()] * 400
    result = bench.episode(endless)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert result.reset_ticks == most + 3 + (most - 1) + 201 + 2


def test_stop_ends_a_reset_at_once(bench: LoopBench) -> None:
    away_from_home(bench)
    bench.person.waits_for = [says()] * 4 + [says(HumanEvent.STOP)] + [says()] * 400
    result = bench.episode(endless)
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.ABORT
    assert "person stopped" in result.outcome.reason
    sources = [tick.outputs.decision.source for tick in bench.ticks]
    assert sources[:4] == [Source.RESET] * 4
    assert set(sources[4:]) == {Source.HOLD}
    speeds = [float(np.linalg.norm(row["tick/filter_velocity"])) for row in bench.recorder.rows]
    assert speeds[3] > 0.0
    assert (np.diff(speeds[3:]) < 0.0).all()  # it only brakes
    assert not bench.laid_s[1:]


def test_stop_ends_the_reset_of_an_arm_at_rest_in_the_very_tick(bench: LoopBench) -> None:
    away_from_home(bench)
    bench.person.waits_for = [says(HumanEvent.STOP)]
    result = bench.episode(endless)
    assert (result.reset_ticks, result.ticks) == (1, 0)
    assert not bench.loop.armed


def test_interventions_are_counted_by_takeover(bench: LoopBench) -> None:
    result = bench.episode(lambda free: says(drives=free in (2, 3, 4, 8, 9)))
    assert (result.human_ticks, result.interventions) == (5, 2)


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


def test_new_weights_are_in_force_from_the_next_tick(bench: LoopBench) -> None:
    def swap(free: int) -> object:
        if free == 3:
            bench.weights.next = (head(heads=0), 7)
        return says()

    bench.episode(swap)  # type: ignore[arg-type]
    versions = [int(row["tick/residual_version"]) for row in bench.free_rows]
    assert versions[:4] == [0, 0, 0, 0]
    assert set(versions[4:]) == {7}
    changed = [bool(row["tick/residual"].any()) for row in bench.free_rows]
    assert changed == [version == 7 for version in versions]


def test_header_holds_the_state_before_the_first_tick(bench: LoopBench) -> None:
    seen: list[str] = []
    make = bench._header
    bench._header = lambda state: (seen.append(state.filter.to_json()), make(state))[1]  # type: ignore[method-assign]
    before = bench.loop.state.filter.to_json()
    bench.episode(when(t1=says(HumanEvent.SUCCESS)))
    assert seen == [before]


def test_lock_step_rows_do_not_depend_on_the_machines_speed(bench: LoopBench) -> None:
    bench.episode(when(t3=says(HumanEvent.SUCCESS)))
    for row in bench.recorder.rows:
        assert np.isnan(row["tick/stage_ms"]).all()
    assert len(bench.loop.times) == len(bench.ticks)


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

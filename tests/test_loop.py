"""How an episode goes: home, table, ticks, and who says that it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from robot.command import Reason
from teleop.arbiter import Source
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


def test_an_episode_begins_once_the_frames_show_the_table_as_it_was_laid(bundle: Path) -> None:
    with LoopBench(bundle, ("camera.front.latency_s", "0.12"), ("synchroniser.max_age_s", "0.25")) as slow:
        assert slow.loop.wait_armed()
        slow.episode(when(t3=says(HumanEvent.SUCCESS)))
        laid_s = slow.laid_s[-1]
        free = [tick.inputs for tick in slow.ticks if tick.inputs.reset is None]
        assert min(min(inputs.observation.captured_s.values()) for inputs in free) >= laid_s
        late = [tick.inputs for tick in slow.ticks if tick.inputs.reset is not None and tick.inputs.now_s > laid_s]
        assert len(late) > 1  # one more than where the cameras are quick


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

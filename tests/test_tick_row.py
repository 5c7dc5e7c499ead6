import math
from dataclasses import replace

import numpy as np
import pytest

from perception.observation import Verdict
from policy.episode_schema import STAGES, EpisodeSpec, Row
from robot.command import Hold
from teleop.human_input import HumanEvent
from teleop.rig import episode_spec
from teleop.station import load_station
from teleop.tick import TickInputs, TickOutputs, TickState
from teleop.tick_row import OUTPUT_FIELDS, fill_outputs, fill_row, read_inputs, read_state, views
from tests.replay_run import STATION
from tests.tick_bench import Bench, head


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("row") / "bundle")


@pytest.fixture(scope="module")
def spec(bench: Bench) -> EpisodeSpec:
    return episode_spec(bench.bundle, 7, load_station(STATION).station)


def written(spec: EpisodeSpec, inputs: TickInputs, outputs: TickOutputs, after: TickState, **times: object) -> Row:
    row = np.frombuffer(b"\xa5" * spec.row_dtype().itemsize, spec.row_dtype()).copy().reshape(())
    fill_row(
        views(row), spec, inputs=inputs, outputs=outputs, after=after,
        residual_version=7, end_s=11.5, deadline_missed=True,
        stages_ms=None, **times,  # type: ignore[arg-type]
    )  # fmt: skip
    return row


def ticks(bench: Bench) -> list[tuple[TickInputs, TickOutputs, TickState, TickState]]:
    """Ticks of every kind, with the state before and after each."""
    bench.make(bench.bundle)
    bench.head = head()
    found = []
    for tick in (
        {},
        {"events": HumanEvent.ARM},
        {},
        {"noise": np.full(5, 0.01, np.float32), "gate_forced": True},
        {"engaged": True, "twist": np.array([0.5, 0.0, -0.25, 0.0, 0.0, 1.0])},
        {"verdict": Verdict.MISSING},
        {"verdict": Verdict.STALE},
        {"reset": np.array([0.0, 0.0, 0.1, 0.0, 1.0], np.float32)},
        {"overrun": True},
        {"events": HumanEvent.STOP},
    ):
        before = bench.state
        outputs = bench.tick(**tick)  # type: ignore[arg-type]
        assert bench.inputs is not None
        found.append((bench.inputs, outputs, before, bench.state))
    return found


def test_a_logged_tick_gives_the_same_outputs_bit_for_bit(bench: Bench, spec: EpisodeSpec) -> None:
    for inputs, outputs, before, after in ticks(bench):
        row = written(spec, inputs, outputs, after)
        again_state, again = bench.pipeline.step(before, read_inputs(row, spec), bench.head)
        twin = row.copy()
        fill_outputs(views(twin), again, again_state)
        for field in OUTPUT_FIELDS:
            assert twin[field].tobytes() == row[field].tobytes(), field


def test_state_after_a_logged_tick_comes_back(bench: Bench, spec: EpisodeSpec) -> None:
    for inputs, outputs, _, after in ticks(bench):
        state = read_state(written(spec, inputs, outputs, after))
        assert state.arbiter == after.arbiter
        assert state.filter.to_json() == after.filter.to_json()
        assert (state.chunk is None) == (after.chunk is None)
        if state.chunk is not None and after.chunk is not None:
            assert state.chunk.requested == after.chunk.requested
            np.testing.assert_array_equal(state.chunk.actions, after.chunk.actions)


def test_what_is_absent_is_nan_or_minus_one_and_never_zero(bench: Bench, spec: EpisodeSpec) -> None:
    inputs, outputs, _, after = next(tick for tick in ticks(bench) if tick[0].observation.verdict is Verdict.MISSING)
    row = written(spec, inputs, outputs, after)
    for field in ("features", "chunk", "base", "human", "reset", "captured_s", "arrived_s", "skew_s", "force_n", "gate",
                  "human_gripper", "stage_ms"):  # fmt: skip
        assert np.isnan(row[f"tick/{field}"]).all(), field
    assert (row["tick/frame_id"] == -1).all()
    assert row["tick/chunk_tick"] == -1
    assert read_inputs(row, spec).observation.images == {}
    assert np.isfinite(row["actions"]).all()


def with_arm(inputs: TickInputs, **changes: object) -> TickInputs:
    look = inputs.observation
    return replace(inputs, observation=replace(look, state=replace(look.state, **changes)))  # type: ignore[arg-type]


def test_a_wrench_is_logged_where_the_arm_gives_one_and_absent_where_it_cannot_tell(
    bench: Bench, spec: EpisodeSpec
) -> None:
    inputs, outputs, _, after = ticks(bench)[2]
    assert "tick/wrench" not in spec.fields()  # of the simulated arm
    spec = spec.model_copy(update={"wrench": True})
    wrench = np.array([1.0, -2.0, 30.0, 0.1, 0.0, 0.0])
    row = written(spec, with_arm(inputs, wrench=wrench, force_n=30.1), outputs, after)
    logged = read_inputs(row, spec).observation.state
    assert logged.wrench is not None
    np.testing.assert_array_equal(logged.wrench, wrench)
    assert logged.force_n == 30.1
    row = written(spec, with_arm(inputs, wrench=None, force_n=None), outputs, after)
    assert np.isnan(row["tick/wrench"]).all()
    logged = read_inputs(row, spec).observation.state
    assert (logged.wrench, logged.force_n) == (None, None)


def test_a_force_that_is_no_number_stops_the_replay_too(bench: Bench, spec: EpisodeSpec) -> None:
    inputs, outputs, _, after = ticks(bench)[2]
    row = written(spec, with_arm(inputs, force_n=math.nan), outputs, after)
    assert read_inputs(row, spec).observation.state.force_n == math.inf


def test_on_a_hold_the_action_is_the_braking_that_was_executed(bench: Bench, spec: EpisodeSpec) -> None:
    braking = [
        tick for tick in ticks(bench) if tick[1].decision.action is None and not isinstance(tick[1].command, Hold)
    ]
    assert braking
    for inputs, outputs, _, after in braking:
        row = written(spec, inputs, outputs, after)
        np.testing.assert_array_equal(row["actions"], outputs.commanded)


def test_every_field_but_the_digest_is_written(bench: Bench, spec: EpisodeSpec) -> None:
    inputs, outputs, _, after = ticks(bench)[3]
    blank = written(spec, inputs, outputs, after)
    other = np.frombuffer(b"\x5a" * spec.row_dtype().itemsize, spec.row_dtype()).copy().reshape(())
    fill_row(
        views(other), spec, inputs=inputs, outputs=outputs, after=after,
        residual_version=7, end_s=11.5, deadline_missed=True,
        stages_ms=None,
    )  # fmt: skip
    unwritten = [name for name in spec.row_dtype().names or () if blank[name].tobytes() != other[name].tobytes()]
    assert unwritten == ["tick/row_digest"]


def test_stage_times_are_logged_in_the_order_of_the_schema(bench: Bench, spec: EpisodeSpec) -> None:
    inputs, outputs, _, after = ticks(bench)[3]
    row = np.zeros((), spec.row_dtype())
    fill_row(
        views(row), spec, inputs=inputs, outputs=outputs, after=after,
        residual_version=0, end_s=0.0, deadline_missed=False,
        stages_ms={"encode": 3.0, "state": 1.0},
    )  # fmt: skip
    expected = {"state": 1.0, "encode": 3.0}
    assert row["tick/stage_ms"].tolist() == [expected.get(stage, 0.0) for stage in STAGES]

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.observation import Verdict
from policy.bundle import load_bundle
from policy.observation_history import HistoryTicks
from policy.residual import Dims, ResidualHead
from policy.weights import unpack
from robot.command import Hold, Reason, SafeCommand
from robot.geometry import pose, rotvec_to_matrix
from teleop.arbiter import HoldReason, Source
from teleop.human_input import AssistMode, HumanEvent
from teleop.tick import Stopwatch
from tests.filter_bench import HOME_Q, KINEMATICS, T_HOME, arm_state
from tests.tick_bench import SCALE, Bench, head
from tests.tiny_bundle import tiny_graphs, tiny_manifest, write_tiny_bundle
from tests.tiny_weights import EXPECTED, tiny_message, tiny_tensors

AHEAD = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tick") / "bundle"


@pytest.fixture
def bench(folder: Path) -> Bench:
    bench = Bench(folder)
    bench.armed()
    return bench


def test_nothing_moves_before_the_person_arms(folder: Path) -> None:
    bench = Bench(folder)
    for engaged in (False, True):
        outputs = bench.tick(engaged=engaged, twist=AHEAD if engaged else None)
        assert isinstance(outputs.command, Hold)
        assert outputs.decision.reason == HoldReason.NOT_ARMED | HoldReason.FILTER_LATCHED
    assert isinstance(bench.armed().command, SafeCommand)
    assert not bench.state.filter.latched


@pytest.mark.parametrize("first", range(1, 6))
def test_takeover_at_any_tick_while_the_base_runs_in_shadow(bench: Bench, first: int) -> None:
    for tick in range(1, 10):
        engaged = first <= tick < first + 3
        outputs = bench.tick(engaged=engaged, twist=AHEAD if engaged else None)
        assert outputs.decision.source is (Source.HUMAN if engaged else Source.POLICY)
        assert outputs.base is not None
        assert np.isfinite(outputs.base).all()
        assert (outputs.human is not None) == engaged
        if engaged:
            assert outputs.decision.action is not None
            assert outputs.decision.action[0] == 1.0
            # the base action beside a correction belongs to this very state
            assert bench.state.chunk is not None
            assert bench.state.chunk.requested == tick


def test_release_hands_back_to_a_fresh_chunk(bench: Bench) -> None:
    for _ in range(4):
        bench.tick(engaged=True, twist=AHEAD)
    released = bench.index
    outputs = bench.tick()
    assert outputs.decision.source is Source.POLICY
    assert bench.state.chunk is not None
    assert bench.state.chunk.requested == released
    np.testing.assert_array_equal(outputs.base, bench.state.chunk.actions[0])
    bench.tick()
    assert bench.state.chunk.requested == released  # and the policy goes on with it


def test_chunk_is_asked_for_again_once_its_steps_are_executed(bench: Bench) -> None:
    requested = []
    for _ in range(5):
        outputs = bench.tick()
        assert bench.state.chunk is not None
        requested.append(bench.state.chunk.requested)
        np.testing.assert_array_equal(outputs.base, bench.state.chunk.actions[bench.index - 1 - requested[-1]])
    assert requested == [0, 2, 2, 4, 4]  # tick 0 is the one in which the person armed


@pytest.mark.parametrize("verdict", [Verdict.STALE, Verdict.SKEWED, Verdict.REPEATED, Verdict.MISSING])
def test_untrusted_frames_hold_and_the_old_delta_is_not_repeated(bench: Bench, verdict: Verdict) -> None:
    bench.tick()
    bench.tick()
    still: NDArray[np.float64] | None = None
    for _ in range(12):
        outputs = bench.tick(verdict=verdict)
        assert outputs.decision.source is Source.HOLD
        assert outputs.decision.action is None
        assert outputs.base is None
        assert outputs.features is None
        assert not outputs.residual.any()
        assert bench.state.chunk is None
        if isinstance(outputs.command, Hold):
            still = bench.state.filter.T_base_tcp if still is None else still
            np.testing.assert_array_equal(bench.state.filter.T_base_tcp, still)
    assert still is not None
    bench.tick()
    assert bench.state.chunk is not None
    assert bench.state.chunk.requested == bench.index - 1


def test_overrun_holds_for_the_tick_and_keeps_the_base_running(bench: Bench) -> None:
    outputs = bench.tick(overrun=True)
    assert outputs.decision.reason is HoldReason.OVERRUN
    assert outputs.base is not None
    assert bench.tick().decision.source is Source.POLICY


def test_homing_moves_without_looking(bench: Bench) -> None:
    outputs = bench.tick(reset=np.array([0.0, 0.0, 0.25, 0.0, 1.0], np.float32), verdict=Verdict.MISSING)
    assert outputs.decision.source is Source.RESET
    assert outputs.features is None
    assert bench.state.chunk is None
    assert bench.state.filter.velocity[2] > 0.0


def nan_bundle(folder: Path, *, dims: slice) -> Path:
    """A bundle whose chunk is NaN in some dimensions, which no check at load can foresee."""
    import onnx
    from onnx import numpy_helper

    manifest = tiny_manifest()
    graphs = tiny_graphs(manifest)
    model = onnx.load_from_string(graphs["act"])
    weight = next(item for item in model.graph.initializer if item.name == "weight")
    values = numpy_helper.to_array(weight).copy().reshape(-1, 4, 5)
    values[..., dims] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values.reshape(-1, 20), "weight"))
    return write_tiny_bundle(folder, manifest, graphs | {"act": bytes(model.SerializeToString(deterministic=True))})


def test_way_home_rights_a_tool_that_was_armed_tilted_and_nothing_else_does(folder: Path) -> None:
    bench = Bench(folder)
    q_rad = KINEMATICS.solve(
        pose(rotvec_to_matrix(np.array([0.03, -0.02, 0.0])) @ T_HOME[:3, :3], T_HOME[:3, 3]), HOME_Q
    )
    assert q_rad is not None
    bench.tick(events=HumanEvent.ARM, measured=arm_state(T=KINEMATICS.forward(q_rad), q_rad=q_rad))

    def tilt_rad() -> float:
        return float(np.arccos(np.clip(bench.state.filter.T_base_tcp[:3, 2] @ T_HOME[:3, 2], -1.0, 1.0)))

    armed = bench.state.filter
    still = np.zeros(5, np.float32)
    for _ in range(10):  # a person who touches nothing
        bench.tick(engaged=True, twist=np.zeros(6))
    assert tilt_rad() == pytest.approx(0.036, abs=1e-3)
    for _ in range(20):
        bench.tick(reset=still)
    assert tilt_rad() < 0.01
    np.testing.assert_allclose(bench.state.filter.T_base_tcp[:3, 3], armed.T_base_tcp[:3, 3], atol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("dims", [slice(0, 5), slice(2, 3), slice(4, 5)], ids=["all", "z", "gripper"])
def test_base_that_is_not_finite_is_rejected_and_the_third_time_latches(
    bench: Bench, tmp_path: Path, dims: slice
) -> None:
    bench.make(load_bundle(nan_bundle(tmp_path / "nan", dims=dims), "cpu"))
    start = bench.arm
    for rejections in (1, 2, 3):
        outputs = bench.tick(events=HumanEvent.ARM if rejections == 1 else HumanEvent.NONE)
        assert isinstance(outputs.command, Hold)
        assert Reason.NOT_FINITE in outputs.command.reasons
        assert bench.state.filter.rejections == rejections
        assert bench.state.filter.latched == (rejections == 3)
    np.testing.assert_array_equal(bench.state.filter.T_base_tcp, start.T_base_tcp)
    # latched: not even the person moves it, until they arm
    assert bench.tick(engaged=True, twist=AHEAD).decision.reason is HoldReason.FILTER_LATCHED
    outputs = bench.tick(events=HumanEvent.ARM, engaged=True, twist=AHEAD)
    assert outputs.decision.source is Source.HUMAN
    assert isinstance(outputs.command, SafeCommand)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_residual_that_is_not_finite_is_rejected(bench: Bench) -> None:
    tensors = tiny_tensors(heads=0) | {"scale": SCALE}
    tensors["actor.out.bias"] = np.full(5, np.nan, np.float32)
    bench.head = ResidualHead(EXPECTED.dims, tensors)
    for _ in range(3):
        outputs = bench.tick()
        assert Reason.NOT_FINITE in outputs.command.reasons
    assert bench.state.filter.latched


def blind_bundle(folder: Path) -> Path:
    """A bundle whose features, and the chunk in force, do not change with the proprioception."""
    import onnx
    from onnx import numpy_helper

    manifest = tiny_manifest(chunk_length=4, execute_steps=2)
    graphs = tiny_graphs(manifest)
    model = onnx.load_from_string(graphs["encode"])
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    concat.input[list(concat.input).index("proprio")] = "nothing"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4), np.float32), "nothing"))
    return write_tiny_bundle(folder, manifest, graphs | {"encode": bytes(model.SerializeToString(deterministic=True))})


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("ticks", [1, 3])
@pytest.mark.parametrize("failing", ["driver", "weights"])
def test_weights_are_not_blamed_for_a_driver_that_gives_no_numbers(
    bench: Bench, tmp_path: Path, ticks: int, failing: str
) -> None:
    history = HistoryTicks(features_ticks=1, proprio_ticks=ticks)
    bench.make(load_bundle(blind_bundle(tmp_path / "blind"), "cpu"), gate=False, history=history)
    dims = Dims(features=6, proprio=4 * ticks, action=5)
    tensors = tiny_tensors(dims, heads=0) | {"scale": SCALE}
    if failing == "weights":
        tensors["actor.out.bias"] = np.full(5, np.nan, np.float32)
    bench.head = ResidualHead(dims, tensors)
    bench.armed()
    driver = arm_state(gripper_width_m=math.nan) if failing == "driver" else None
    outputs = bench.tick(measured=driver)  # within the chunk that the tick before began
    assert outputs.base is not None
    assert np.isfinite(outputs.base).all()
    assert np.isnan(outputs.residual).all()
    assert Reason.NOT_FINITE in outputs.command.reasons  # the arm is given no such number, whoever is to blame
    assert outputs.residual_failed == (failing == "weights")
    if failing == "driver":
        recovered = bench.tick()
        assert np.isfinite(recovered.residual).all()
        assert isinstance(recovered.command, SafeCommand)


def test_person_who_is_not_finite_is_rejected(bench: Bench) -> None:
    outputs = bench.tick(engaged=True, twist=np.array([np.nan, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert Reason.NOT_FINITE in outputs.command.reasons


def test_residual_and_noise_together_stay_within_the_scale(bench: Bench) -> None:
    bench.head = head(heads=0)
    rng = np.random.default_rng(0)
    reached = np.zeros(5)
    for _ in range(30):
        noise = rng.normal(size=5).astype(np.float32)
        outputs = bench.tick(noise=noise)
        assert outputs.base is not None
        assert outputs.decision.action is not None
        assert np.all(np.abs(outputs.residual) <= SCALE)
        np.testing.assert_array_equal(outputs.decision.action, np.clip(outputs.base + outputs.residual, -1.0, 1.0))
        reached = np.maximum(reached, np.abs(outputs.residual))
    np.testing.assert_array_equal(reached, SCALE)


def gate_ticks(bench: Bench, *, forced: bool = False) -> list[bool]:
    bench.head = head(seed=3)
    opened = []
    for _ in range(40):
        outputs = bench.tick(gate_forced=forced)
        assert outputs.base is not None
        assert outputs.decision.action is not None
        assert np.isfinite(outputs.gate).all()
        worth = bool(outputs.gate[1] >= outputs.gate[0])
        if not outputs.gate_open:
            assert not worth
            assert not outputs.residual.any()
            np.testing.assert_array_equal(outputs.decision.action, np.clip(outputs.base, -1.0, 1.0))
        opened.append(outputs.gate_open)
        if forced:
            assert outputs.gate_open
        elif outputs.gate_open:
            assert worth
    return opened


def test_closed_gate_leaves_the_base_alone(bench: Bench) -> None:
    opened = gate_ticks(bench)
    assert set(opened) == {True, False}


def test_forced_pass_opens_a_closed_gate(bench: Bench) -> None:
    assert all(gate_ticks(bench, forced=True))


def test_gate_that_is_switched_off_is_open_and_not_asked(folder: Path) -> None:
    bench = Bench(folder, gate=False)
    bench.armed()
    bench.head = head(seed=3)
    assert bench.head.heads == 2
    for _ in range(40):
        outputs = bench.tick()
        assert outputs.gate_open
        assert np.isnan(outputs.gate).all()


def test_new_weights_change_the_next_action(bench: Bench) -> None:
    messages = {version: tiny_message(version, tiny_tensors(seed=version, heads=0)) for version in (1, 2)}
    arm, state = bench.arm, bench.state
    actions = []
    for version in (1, 1, 2):
        bench.arm, bench.state, bench.index = arm, state, 1
        bench.head = unpack(messages[version], EXPECTED).head
        actions.append(bench.tick().decision.action)
    assert actions[0] is not None
    np.testing.assert_array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])


def test_same_state_and_inputs_give_the_same_bits(bench: Bench) -> None:
    bench.head = head()
    bench.tick()
    before = bench.state
    first = bench.tick(noise=np.full(5, 0.01, np.float32))
    after = bench.state
    assert bench.inputs is not None
    again_state, again = bench.pipeline.step(before, bench.inputs, bench.head)
    assert again_state.filter.to_json() == after.filter.to_json()
    for name in ("features", "base", "residual", "gate", "commanded"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()


def test_executed_action_is_what_the_filter_let_through(bench: Bench) -> None:
    before = bench.state.filter.T_base_tcp[:3, 3]
    outputs = bench.tick(engaged=True, twist=AHEAD)
    moved = bench.state.filter.T_base_tcp[:3, 3] - before
    np.testing.assert_allclose(outputs.commanded[:3], moved / 0.02, atol=1e-5)
    assert outputs.commanded[0] < 1.0  # full deflection from rest is more than the acceleration limit allows


def test_arm_verb_while_the_arm_reports_a_fault_stays_latched(bench: Bench) -> None:
    faulty = arm_state(fault="reflex")
    bench.tick(measured=faulty)
    bench.tick(measured=faulty)
    while not bench.state.filter.at_rest:
        bench.tick(measured=faulty)
    assert bench.tick(measured=faulty, events=HumanEvent.ARM).decision.reason is HoldReason.FILTER_LATCHED
    assert bench.tick(events=HumanEvent.ARM).decision.source is Source.POLICY


def test_nudge_runs_on_the_same_chunk_as_the_shadow(folder: Path) -> None:
    bench = Bench(folder, mode=AssistMode.NUDGE)
    bench.armed()
    outputs = bench.tick(engaged=True, twist=0.1 * AHEAD)
    assert outputs.base is not None
    assert outputs.decision.action is not None
    wanted = outputs.base + np.array([0.1, 0.0, 0.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(outputs.decision.action, np.clip(wanted, -1.0, 1.0), rtol=1e-6)


def test_stopwatch_adds_up_the_stages_of_a_tick(bench: Bench) -> None:
    watch = Stopwatch()
    watch.start()
    assert bench.inputs is not None
    bench.pipeline.step(bench.state, bench.inputs, bench.head, watch)
    assert list(watch.stages_ms) == ["encode", "act", "residual", "arbitrate", "filter"]
    assert all(stage_ms >= 0.0 for stage_ms in watch.stages_ms.values())
    watch.start()
    assert watch.stages_ms == {}

"""Bad weights never replace good ones, and there is always a way back."""

from __future__ import annotations

import numpy as np
import pytest

from policy.weights import RefusalReason, WeightsRefused
from policy.weights_gate import GoldenObservations, WeightsGate
from tests.tiny_weights import DIMS, EXPECTED, tiny_golden, tiny_message, tiny_tensors

INITIAL = EXPECTED.initial_weights("run-1")
ONES = np.ones(10, np.float32)


@pytest.fixture
def gate() -> WeightsGate:
    return WeightsGate(INITIAL, expected=EXPECTED, golden=tiny_golden(), runs=("run-1",))


def residual(gate: WeightsGate) -> np.ndarray:
    return gate.current.head.residual(ONES[:6], ONES[:4], ONES[:5])


def refusal(gate: WeightsGate, message: bytes) -> WeightsRefused:
    with pytest.raises(WeightsRefused) as caught:
        gate.accept(message)
    return caught.value


def test_a_new_gate_holds_the_head_that_does_nothing(gate: WeightsGate) -> None:
    assert gate.current.version == 0
    assert not residual(gate).any()
    assert (gate.accepted, dict(gate.refusals)) == (0, {})


def test_accepted_weights_change_the_residual(gate: WeightsGate) -> None:
    accepted = gate.accept(tiny_message(version=1))
    assert gate.current is accepted
    assert gate.accepted == 1
    assert residual(gate).any()


def test_the_same_or_an_older_version_is_refused(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=5))
    for version in (5, 4, 0):
        refused = refusal(gate, tiny_message(version=version))
        assert refused.reason is RefusalReason.OLDER
        assert str(refused) == f"weights refused (older): version {version} is not newer than 5, accepted before"
    assert gate.current.version == 5
    assert gate.refusals[RefusalReason.OLDER] == 3


def test_weights_of_another_run_are_refused_and_counted(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    refused = refusal(gate, tiny_message(version=2, run_id="run-2"))
    assert refused.reason is RefusalReason.RUN
    assert str(refused) == (
        "weights refused (run): learned for run 'run-2', this robot takes those of run-1; connect it to its own learner"
    )
    assert gate.current.version == 1
    assert gate.refusals == {RefusalReason.RUN: 1}
    assert gate.accept(tiny_message(version=2)).version == 2


def test_a_run_may_start_from_another_runs_weights_and_count_its_own_versions_from_the_first() -> None:
    gate = WeightsGate(
        tiny_message(version=900, run_id="last-week"), expected=EXPECTED, golden=tiny_golden(), runs=("run-1",)
    )
    assert gate.current.version == 900
    assert gate.accept(tiny_message(version=1)).run_id == "run-1"


def test_a_refusal_leaves_the_weights_in_force_and_is_counted_by_reason(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    before = residual(gate).tobytes()
    nan = tiny_tensors()
    nan["actor.out.bias"][0] = np.nan
    assert refusal(gate, tiny_message(version=2, tensors=nan)).reason is RefusalReason.NOT_FINITE
    assert refusal(gate, tiny_message(version=2)[:-1]).reason is RefusalReason.MALFORMED
    assert refusal(gate, tiny_message(version=2, bundle_sha256="c" * 64)).reason is RefusalReason.BUNDLE
    assert residual(gate).tobytes() == before
    assert gate.refusals == {RefusalReason.NOT_FINITE: 1, RefusalReason.MALFORMED: 1, RefusalReason.BUNDLE: 1}
    assert gate.accepted == 1


def test_a_saturated_head_is_refused_although_its_weights_are_finite(gate: WeightsGate) -> None:
    tensors = tiny_tensors()
    tensors["actor.out.bias"] = np.full(DIMS.action, 50.0, np.float32)
    refused = refusal(gate, tiny_message(tensors=tensors))
    assert str(refused) == (
        "weights refused (saturated): version 1 is at its bound in 100% of recorded outputs (limit 50%); "
        "lower the actor's learning rate"
    )


def test_a_share_of_saturated_outputs_below_the_limit_is_accepted(gate: WeightsGate) -> None:
    tensors = tiny_tensors()
    tensors["actor.out.bias"][:2] = 50.0
    assert gate.accept(tiny_message(tensors=tensors)).version == 1


@pytest.mark.parametrize("name", ["actor.0.weight", "gate.0.out.weight"])
def test_finite_weights_that_overflow_on_a_recorded_tick_are_refused(gate: WeightsGate, name: str) -> None:
    tensors = {key: value for key, value in tiny_tensors(depth=1).items() if ".norm." not in key}
    tensors[name] = (
        np.where(np.arange(tensors[name].size) % 2, 3e38, -3e38).astype(np.float32).reshape(tensors[name].shape)
    )
    if name.startswith("gate"):
        tensors["gate.0.0.bias"] = np.full_like(tensors["gate.0.0.bias"], 1e3)
    refused = refusal(gate, tiny_message(tensors=tensors))
    assert str(refused) == "weights refused (not_finite): version 1 gives NaN or infinity on a recorded tick"


def test_rollback_returns_to_the_weights_before_and_stays_there(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    before = residual(gate).tobytes()
    gate.accept(tiny_message(version=2, tensors=tiny_tensors(seed=1)))
    assert residual(gate).tobytes() != before
    assert gate.rollback().version == 1
    assert residual(gate).tobytes() == before
    assert gate.rollback().version == 1


def test_rollback_of_the_first_weights_returns_to_doing_nothing(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    assert gate.rollback().version == 0
    assert not residual(gate).any()


def test_a_version_that_was_rolled_back_is_not_taken_again(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    gate.accept(tiny_message(version=2))
    gate.rollback()
    assert refusal(gate, tiny_message(version=2)).reason is RefusalReason.OLDER
    assert gate.accept(tiny_message(version=3)).version == 3


def test_after_a_rollback_the_next_weights_roll_back_to_the_good_ones(gate: WeightsGate) -> None:
    gate.accept(tiny_message(version=1))
    gate.accept(tiny_message(version=2))
    gate.rollback()
    gate.accept(tiny_message(version=3))
    assert gate.rollback().version == 1


def test_a_gate_without_recorded_observations_is_not_made() -> None:
    for golden in (tiny_golden(count=0), GoldenObservations(**{**vars(tiny_golden()), "proprio": ONES[None]})):
        with pytest.raises(ValueError, match="golden observations are"):
            WeightsGate(INITIAL, expected=EXPECTED, golden=golden, runs=("run-1",))


def test_a_gate_cannot_start_on_refused_weights() -> None:
    with pytest.raises(WeightsRefused):
        WeightsGate(INITIAL[:-1], expected=EXPECTED, golden=tiny_golden(), runs=("run-1",))

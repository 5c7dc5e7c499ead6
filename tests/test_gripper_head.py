"""The discrete head: what no bounded sum can do, take a closing gripper to open."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from policy.manifest_file import read_manifest
from policy.residual import CLOSED, GRIPPER_CHOICES, OPEN, Float, ResidualHead, gripper_choice
from policy.weights import Expected, RefusalReason, WeightsRefused, unpack
from teleop.station import ResidualConfig
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import BUNDLE, DIMS, tiny_message, tiny_tensors

GRIPPER = 4
SCALE = (0.3, 0.3, 0.3, 0.3, 0.0)
ALLOWED = Expected(dims=DIMS, bundle_sha256=BUNDLE, max_scale=SCALE, gripper=GRIPPER)
NOISE = np.zeros(DIMS.action, np.float32)


def tensors(keep: float = 0.0, opened: float = 0.0, closed: float = 0.0, dimension: int = GRIPPER) -> dict[str, Float]:
    """A head whose logits are the same whatever it sees."""
    made = tiny_tensors() | {"scale": np.array(SCALE, np.float32)}
    width = made["actor.out.weight"].shape[1]
    made["actor.out.weight"] = np.concatenate(
        [made["actor.out.weight"], np.zeros((GRIPPER_CHOICES, width), np.float32)]
    )
    made["actor.out.bias"] = np.concatenate([made["actor.out.bias"], np.array([keep, opened, closed], np.float32)])
    made["gripper.dimension"] = np.eye(DIMS.action, dtype=np.float32)[dimension]
    return made


def seen(gripper: float = -1.0) -> tuple[Float, Float, Float]:
    rng = np.random.default_rng(3)
    features, proprio, base = (
        rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (DIMS.features, DIMS.proprio, DIMS.action)
    )
    base[GRIPPER] = gripper
    return features, proprio, base


@pytest.mark.parametrize(
    ("logits", "base", "executed"),
    [
        ((0.0, 0.0, 0.0), -1.0, -1.0),
        ((5.0, 0.0, 0.0), -1.0, -1.0),
        ((0.0, 5.0, 0.0), -1.0, 1.0),
        ((0.0, 0.0, 5.0), 1.0, -1.0),
        ((0.0, 0.0, 5.0), 0.25, -1.0),
        ((0.0, 5.0, 0.0), 1.0, 1.0),
        # the most likely of three, but less likely than the two others together
        ((0.0, 0.5, 0.0), -1.0, -1.0),
        ((0.0, 0.75, 0.0), -1.0, 1.0),
    ],
)
def test_the_gripper_does_what_is_more_likely_than_everything_else(
    logits: tuple[float, float, float], base: float, executed: float
) -> None:
    head = ResidualHead(DIMS, tensors(*logits))
    what = seen(base)
    residual, _ = head.corrected(*what, NOISE)
    assert residual[GRIPPER] + what[2][GRIPPER] == executed
    assert residual.tobytes() == head.residual(*what).tobytes()


def test_the_other_dimensions_are_those_of_the_same_head_without_it() -> None:
    plain = tiny_tensors() | {"scale": np.array(SCALE, np.float32)}
    with_gripper, without = ResidualHead(DIMS, tensors(opened=5.0)), ResidualHead(DIMS, plain)
    for base in (-1.0, 1.0):
        np.testing.assert_allclose(
            with_gripper.residual(*seen(base))[:GRIPPER], without.residual(*seen(base))[:GRIPPER], rtol=1e-6
        )


def test_the_gate_judges_the_action_with_the_chosen_gripper() -> None:
    head = ResidualHead(DIMS, tensors(opened=5.0))
    features, proprio, base = seen(-1.0)
    residual, values = head.corrected(features, proprio, base, NOISE)
    np.testing.assert_array_equal(values, head.values(features, proprio, np.stack([base, base + residual])))


def test_a_logit_that_is_no_number_shows_and_moves_nothing() -> None:
    for broken in ((math.nan, 0.0, 0.0), (0.0, math.inf, 0.0), (math.inf, -math.inf, 0.0)):
        choice = gripper_choice(*broken)
        assert choice is not None
        assert math.isnan(choice)
    assert (gripper_choice(0.0, 3.0, 0.0), gripper_choice(0.0, 0.0, 3.0)) == (OPEN, CLOSED)


def test_a_station_that_does_not_allow_it_refuses_a_gripper_head() -> None:
    message = tiny_message(tensors=tensors())
    assert unpack(message, ALLOWED).head.gripper == GRIPPER
    for other in (None, 3):
        expected = Expected(dims=DIMS, bundle_sha256=BUNDLE, max_scale=SCALE, gripper=other)
        with pytest.raises(WeightsRefused, match="decides action dimension 4, the station allows") as caught:
            unpack(message, expected)
        assert caught.value.reason is RefusalReason.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gripper.dimension": np.zeros(5, np.float32)}, "must be 1 in one dimension"),
        ({"gripper.dimension": np.ones(5, np.float32)}, "must be 1 in one dimension"),
        ({"gripper.dimension": np.eye(5, dtype=np.float32)[0]}, "must be 0"),  # which the bounded sum has already
        ({"gripper.dimension": np.zeros(4, np.float32)}, "must be"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(changes: dict[str, Float], line: str) -> None:
    with pytest.raises(WeightsRefused, match=line):
        unpack(tiny_message(tensors=tensors() | changes), ALLOWED)


def test_logits_without_a_dimension_for_them_are_refused() -> None:
    made = tensors()
    del made["gripper.dimension"]
    with pytest.raises(WeightsRefused, match=r"actor\.out"):
        unpack(tiny_message(tensors=made), ALLOWED)


@pytest.mark.parametrize("chooses", [True, False])
def test_the_station_says_whether_the_gripper_may_be_chosen(tmp_path: Path, chooses: bool) -> None:
    manifest, _ = read_manifest(make_tiny_bundle(tmp_path / "bundle"))
    expected = Expected.of(manifest, ResidualConfig(scale=SCALE, gripper=chooses))
    assert expected.gripper == (manifest.action.dims.index("gripper") if chooses else None)
    assert expected.max_scale == SCALE
    assert Expected.of(manifest, None).max_scale == (0.0,) * len(SCALE)

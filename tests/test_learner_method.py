"""One switch chooses what learns from the same episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from benchmarks.learner_data import ACTION, FEATURES, PROPRIO, filled_buffer
from policy.learner_method import read_method, told
from policy.learner_process import make_learner_of
from policy.learner_settings import LearnerSettings, Method
from policy.resfit_learner import ResfitLearner
from policy.residual_learner import ResidualLearner
from policy.rlpd_learner import RlpdLearner
from robot.errors import BadInputError

SCALE = (0.3,) * ACTION
SMALL: dict[str, JsonValue] = {"hidden": [8, 8]}


def settings(folder: Path, method: Method, **algorithm: JsonValue) -> LearnerSettings:
    return LearnerSettings(
        state_dir=folder, run_id="run-1", bundle_sha256="b" * 64,
        feature_size=FEATURES, proprio_size=PROPRIO, action_size=ACTION, method=method, algorithm=algorithm,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "kind"),
    [("handrail", ResidualLearner), ("hg_dagger", ResidualLearner), ("resfit", ResfitLearner), ("rlpd", RlpdLearner)],
)
def test_every_method_learns_from_the_same_batches(method: Method, kind: type, tmp_path: Path) -> None:
    scale = (1.0,) * ACTION if method == "rlpd" else SCALE
    fields = told(method, scale=scale, gate=False, gripper=None, where="here") | SMALL
    learner = make_learner_of(settings(tmp_path, method, **fields))
    assert type(learner) is kind
    buffer, rng = filled_buffer(500), np.random.default_rng(0)
    for _ in range(3):
        figures = learner.update(buffer.sample(64, rng))
    assert np.isfinite(list(figures.values())).all()
    assert learner.tensors()["scale"].tolist() == pytest.approx(scale)


def test_hg_dagger_learns_nothing_where_no_person_acted(tmp_path: Path) -> None:
    """Neither reward nor approval moves it, whatever the critics think."""
    fields: dict[str, JsonValue] = {"scale": [*SCALE], "actor_after": 0, "weight_decay": 0.0, **SMALL}
    learner = make_learner_of(settings(tmp_path, "hg_dagger", **fields))
    buffer, rng = filled_buffer(500), np.random.default_rng(0)
    for _ in range(6):
        batch = buffer.sample(64, rng)
        batch.human[:] = False
        learner.update(batch)
    assert not learner.tensors()["actor.out.weight"].any()


def test_a_field_of_another_method_is_named() -> None:
    with pytest.raises(BadInputError, match=r"^station x: algorithm: .*q_weight.*baseline_config\.ResfitConfig$"):
        read_method("resfit", {"scale": [0.1], "q_weight": 1.0}, "station x")


def test_from_scratch_the_scale_must_be_the_whole_action() -> None:
    with pytest.raises(BadInputError, match=r"'rlpd' gives the whole action.*set it to \[1\.0, 1\.0\].*--encode-of"):
        told("rlpd", scale=(0.4, 1.0), gate=False, gripper=None, where="station x: learner")


@pytest.mark.parametrize(("gate", "gripper", "part"), [(True, None, "gate"), (False, 4, "gripper")])
def test_what_a_method_lacks_is_said(gate: bool, gripper: int | None, part: str) -> None:
    with pytest.raises(BadInputError, match=rf"'resfit' has no {part}; set residual\.{part} to false"):
        told("resfit", scale=(0.1,), gate=gate, gripper=gripper, where="station x: learner")

"""A checkpoint brings everything back bit for bit, or says in one line why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy.learner_checkpoint import load_checkpoint, save_checkpoint
from robot.errors import BadInputError


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def test_torch_and_numpy_state_comes_back_exactly(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    rng = np.random.default_rng(5)
    state = {
        "layer": dict(layer.state_dict()),
        "optimiser": optimiser.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": rng.bit_generator.state,
        "numbers": [1 / 3, 1e-310, float("inf"), -0.0, 2**100, True, None, "text"],
        "tuple": (1, (2,)),
        "array": np.arange(3, dtype=np.int64),
        "empty": np.zeros(0, dtype=np.uint8),
        "shared": [layer.weight, layer.weight],
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    save_checkpoint(tmp_path / "state", state)
    assert same(state, load_checkpoint(tmp_path / "state"))


def test_what_cannot_be_saved_is_refused_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, {"a": 1})
    for wrong in ({"a": object()}, {"a": {1.5: 2}}):
        with pytest.raises(TypeError):
            save_checkpoint(path, wrong)
    assert load_checkpoint(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_checkpoint_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInputError, match=r"no sound checkpoint .*start anew") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, {"a": torch.ones(1)})
    path.write_bytes(path.read_bytes().replace(b'"schema_version":"2"', b'"schema_version":"9"'))
    with pytest.raises(BadInputError, match="schema 9"):
        load_checkpoint(path)

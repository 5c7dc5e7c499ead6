"""Everything a learner needs to go on after a crash, in one file that is whole or absent.

A safetensors file: the tensors, and in its metadata the rest of the state as JSON. Nothing is pickled, and every
number comes back bit for bit. Imports torch, so only the learner's process may import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from policy.canonical_safetensors import canonical
from robot.errors import BadInputError
from robot.whole_file import write_whole

SCHEMA_VERSION = 2


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` at once.

    Args:
        path: of the file; its folder exists.
        state: nested dicts (keys are texts or integers), lists and tuples of tensors, arrays, numbers, texts,
            booleans and None, as torch's `state_dict` and numpy's generator state are.

    Raises:
        TypeError: something else is in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(dict(state), tensors)
    metadata = {"schema_version": str(SCHEMA_VERSION), "state": json.dumps(tree)}
    write_whole(path, canonical(save(tensors, metadata)))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that was saved, tensors on the CPU.

    Raises:
        BadInputError: the file is damaged or of another schema version.
    """
    cure = "move it away to start anew from the stored episodes"
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema_version") != str(SCHEMA_VERSION):
                raise BadInputError(
                    f"{path}: checkpoint of schema {metadata.get('schema_version')} (allowed {SCHEMA_VERSION}); {cure}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = _restore(json.loads(metadata["state"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: no sound checkpoint ({type(error).__name__}: {error}); {cure}") from error
    if not isinstance(state, dict):
        raise BadInputError(f"{path}: no sound checkpoint (state is {type(state).__name__}); {cure}")
    return state


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON; containers become one-key objects that name their kind, tensors go to `tensors`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray):
        name = f"{len(tensors):06d}"
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value.copy())
        # cloned, because safetensors refuses tensors that share memory
        tensors[name] = tensor.detach().cpu().contiguous().clone()
        return {"tensor" if isinstance(value, torch.Tensor) else "array": name}
    if isinstance(value, Mapping):
        if not all(type(key) in (str, int) for key in value):
            raise TypeError(f"checkpoint keys must be texts or integers, got {list(value)[:5]}")
        return {"dict": [[key, _flatten(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_flatten(entry, tensors) for entry in value]}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: _restore(entry, tensors) for key, entry in content}
    if kind == "list":
        return [_restore(entry, tensors) for entry in content]
    if kind == "tuple":
        return tuple(_restore(entry, tensors) for entry in content)
    if kind == "array":
        return tensors[content].numpy()
    if kind == "tensor":
        return tensors[content]
    raise ValueError(f"unknown kind {kind!r}")

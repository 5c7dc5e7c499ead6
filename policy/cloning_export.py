"""From a checkpoint of the base policy's training to a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from policy.cloning_demonstrations import CHUNK
from policy.cloning_network import Act, Encode
from policy.export import Sample, export_bundle
from policy.learner_checkpoint import load_checkpoint
from policy.manifest import ActionSpec, CameraCalibration, CameraInput, ProprioInput
from policy.observation_history import HistoryTicks
from robot.errors import BadInputError

EXECUTE = 4


def export_checkpoint(path: Path, out: Path, history: HistoryTicks | None = None) -> dict[str, Any]:
    """Write the bundle of a checkpoint, finished or not, to `out`; return what is known of its training.

    `history` is how many ticks a residual on it is to see.

    Raises:
        BadInputError: the file is no such checkpoint, or the folder holds something else.
    """
    state = load_checkpoint(path)
    try:
        export_clone(state, out, history)
        return _training(state)
    except (KeyError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise BadInputError(f"{path}: no checkpoint of train_base_policy.py clone ({what}); name one") from error


def export_clone(state: Mapping[str, Any], out: Path, history: HistoryTicks | None = None) -> None:
    """Write the bundle of a training's state (`policy.cloning_training`) to `out`."""
    about = state["about"]
    action = ActionSpec.model_validate_json(_json(about["action"]))
    cameras = [CameraInput(name=name, height=height, width=width) for name, height, width in about["cameras"]]
    mean, std = state["encode"]["proprio_mean"], state["encode"]["proprio_std"]
    targets = len(state["encode"]["targets.bias"])
    encode = Encode(cameras[0].height, cameras[0].width, targets, mean, std)
    act = Act(CHUNK, action.size, targets, 1.0 - action.headroom, mean, std)
    encode.load_state_dict(state["encode"])
    act.load_state_dict(state["act"])
    images, proprio = state["sample_images"], np.asarray(state["sample_proprio"])
    export_bundle(
        out,
        encode=encode,
        act=act,
        name=out.name,
        version=1,
        rate_hz=about["rate_hz"],
        cameras=cameras,
        proprio=[ProprioInput(key=key, size=size) for key, size in about["proprio"]],
        action=action,
        execute_steps=EXECUTE,
        calibration={
            name: CameraCalibration.model_validate_json(_json(where)) for name, where in about["calibration"].items()
        },
        training=_training(state),
        samples=[
            Sample(images={name: values[row] for name, values in images.items()}, proprio=proprio[row])
            for row in range(len(proprio))
        ],
        history=history,
    )


def _training(state: Mapping[str, Any]) -> dict[str, str | int | float]:
    about = state["about"]
    facts = {name: about[name] for name in ("episodes", "ticks", "seed")}
    return {**facts, "updates": state["updates"], **about.get("figures", {})}


def _json(value: Any) -> str:
    return json.dumps(value)

"""Writes a trained reward model, and checks that ONNX Runtime computes what torch computed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from policy.export import PARITY_LIMIT, ExportError, frozen_copy, onnx_graph
from policy.manifest import CameraInput, ProprioInput
from policy.onnx_session import OnnxSession, TensorSpec
from policy.reward_manifest import RewardCalibration
from policy.reward_network import RewardGraph
from policy.reward_rule import RewardRule
from policy.reward_writer import write_reward_model


def export_reward_model(
    folder: Path,
    *,
    graph: RewardGraph,
    rate_hz: float,
    cameras: Sequence[CameraInput],
    proprio: Sequence[ProprioInput],
    rule: RewardRule,
    calibration: RewardCalibration,
    training: Mapping[str, str | int | float],
    images: Mapping[str, NDArray[np.uint8]],
    values: NDArray[np.float32],
    created_utc: str | None = None,
) -> Path:
    """Write the reward model and return its folder; it appears whole or not at all.

    The greatest difference from torch over the samples goes into the manifest as `training.parity_max_abs_error`.

    Args:
        folder: where it goes; its name becomes the model's.
        graph: network and calibration.
        rate_hz: rate of the ticks that the debounce counts [Hz].
        cameras: the images that it takes.
        proprio: the proprioception that it takes, in order.
        rule: threshold and debounce.
        calibration: how well it does on held-out episodes.
        training: free facts about the training.
        images: samples for the comparison with torch by camera, (N, H, W, 3).
        values: their proprioception, (N, P).
        created_utc: ISO 8601; now by default.

    Raises:
        ExportError: torch and ONNX Runtime differ by more than `PARITY_LIMIT`.
        BadInputError: the folder holds something else, or the fields make no valid manifest.
    """
    if not len(values):
        raise ValueError("export_reward_model needs at least one sample to compare with torch")
    frozen = frozen_copy(graph)
    samples = [_tensors(images, values, cameras, bool(proprio), row) for row in range(len(values))]
    names = [*(f"{camera.name}_image" for camera in cameras), *(["proprio"] if proprio else [])]
    model = onnx_graph(frozen, samples[0], names, "probability")
    parity = _parity(frozen, model, names, samples)
    if not parity <= PARITY_LIMIT:
        raise ExportError(
            f"reward model '{folder.name}': ONNX Runtime differs from torch by {parity:.2e} (limit {PARITY_LIMIT:.0e})"
        )
    content = {
        "name": folder.name.lower(),
        "created_utc": created_utc or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rate_hz": rate_hz,
        "cameras": [camera.model_dump(mode="json") for camera in cameras],
        "proprio": [entry.model_dump(mode="json") for entry in proprio],
        "threshold": rule.threshold,
        "debounce_ticks": rule.debounce_ticks,
        "calibration": calibration.model_dump(mode="json"),
        "training": {**training, "parity_max_abs_error": parity},
    }
    return write_reward_model(folder, content, model)


def _tensors(
    images: Mapping[str, NDArray[np.uint8]],
    values: NDArray[np.float32],
    cameras: Sequence[CameraInput],
    proprio: bool,
    row: int,
) -> tuple[torch.Tensor, ...]:
    seen = [torch.from_numpy(images[camera.name][row : row + 1].copy()) for camera in cameras]
    return (*seen, torch.from_numpy(values[row : row + 1].copy())) if proprio else tuple(seen)


def _parity(
    graph: torch.nn.Module, model: bytes, names: Sequence[str], samples: Sequence[tuple[torch.Tensor, ...]]
) -> float:
    """Return the greatest absolute difference of the probability between torch and ONNX Runtime."""
    inputs: dict[str, TensorSpec] = {
        name: (tuple(tensor.shape), np.uint8 if tensor.dtype == torch.uint8 else np.float32)
        for name, tensor in zip(names, samples[0], strict=True)
    }
    outputs: dict[str, TensorSpec] = {"probability": ((1, 1), np.float32)}
    session = OnnxSession(model, "reward graph", inputs=inputs, outputs=outputs, provider="cpu")
    greatest = 0.0
    for sample in samples:
        with torch.no_grad():
            expected = graph(*sample).numpy()
        got = session.run({name: tensor.numpy() for name, tensor in zip(names, sample, strict=True)})["probability"]
        greatest = max(greatest, float(np.abs(got - expected).max()))
    return greatest

"""Writes a trained torch policy as a bundle, and checks that ONNX Runtime computes what torch computed."""

from __future__ import annotations

import contextlib
import copy
import datetime
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from policy.bundle_writer import check_target, write_bundle
from policy.manifest import (
    SCHEMA_VERSION,
    ActionSpec,
    CameraCalibration,
    CameraInput,
    ProprioInput,
)
from policy.observation_history import HistoryTicks
from policy.onnx_session import OnnxSession, TensorSpec
from robot.errors import HandrailError

PARITY_LIMIT = 1e-4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One policy input: per camera (H, W, 3) uint8, and proprioception (P,) float32."""

    images: Mapping[str, NDArray[np.uint8]]
    proprio: NDArray[np.float32]


class ExportError(HandrailError):
    """The exported graphs do not compute what the torch modules compute."""


def export_bundle(
    folder: str | Path,
    *,
    encode: torch.nn.Module,
    act: torch.nn.Module,
    name: str,
    version: int,
    rate_hz: float,
    cameras: Sequence[CameraInput],
    proprio: Sequence[ProprioInput],
    action: ActionSpec,
    execute_steps: int,
    calibration: Mapping[str, CameraCalibration],
    training: Mapping[str, str | int | float],
    samples: Sequence[Sample],
    created_utc: str | None = None,
    history: HistoryTicks | None = None,
) -> Path:
    """Write the bundle and return its folder; feature size and chunk length are taken from the modules.

    The greatest difference from torch over `samples` goes into the manifest as
    `training.parity_max_abs_error`. The folder appears whole or not at all; an older bundle there is replaced.

    Args:
        folder: where the bundle goes.
        encode: `(image (1, H, W, 3) uint8 per camera in the order of cameras, proprio (1, P)) -> (1, F)`.
        act: `(features (1, F), proprio (1, P)) -> (1, H, A)`.
        name: the policy's name, lower case.
        version: counts up by one per export of the same policy.
        rate_hz: rate at which its actions are meant [Hz].
        cameras: the images it takes.
        proprio: the proprioception that it takes, in order.
        action: how its actions map to SI.
        execute_steps: steps of a chunk to run before the next is due.
        calibration: where the cameras were in training, by camera.
        training: free facts about the training.
        samples: real inputs for the comparison with torch; at least one.
        created_utc: ISO 8601; now by default.
        history: how many ticks a residual on it sees; the present one without.

    Raises:
        ExportError: torch and ONNX Runtime differ by more than `PARITY_LIMIT`.
        BadInputError: the folder holds something else than a bundle, or the fields make no valid manifest.
    """
    folder = Path(folder).absolute()
    if not samples:
        raise ValueError("export_bundle needs at least one sample to compare with torch")
    check_target(folder)
    encode, act = frozen_copy(encode), frozen_copy(act)
    images = [camera.name + "_image" for camera in cameras]
    first = _tensors(samples[0], cameras)
    with torch.no_grad():
        features = encode(*first)
        chunk = act(features, first[-1])
    graphs = {
        "encode": onnx_graph(encode, first, [*images, "proprio"], "features"),
        "act": onnx_graph(act, (features, first[-1]), ["features", "proprio"], "chunk"),
    }
    parity = _parity(encode, act, graphs, cameras, samples)
    if not parity <= PARITY_LIMIT:
        raise ExportError(
            f"bundle '{name}': ONNX Runtime differs from torch by {parity:.2e} (limit {PARITY_LIMIT:.0e}); "
            "bring the network's inner values to order 1"
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "created_utc": created_utc or now,
        "rate_hz": rate_hz,
        "cameras": [camera.model_dump(mode="json") for camera in cameras],
        "proprio": [entry.model_dump(mode="json") for entry in proprio],
        "action": action.model_dump(mode="json"),
        "chunk_length": chunk.shape[1],
        "execute_steps": execute_steps,
        "feature_size": features.shape[1],
        "calibration": {camera: where.model_dump(mode="json") for camera, where in calibration.items()},
        "training": {**training, "parity_max_abs_error": parity},
    }
    if history is not None:
        content["history"] = history.model_dump(mode="json")
    return write_bundle(folder, content, graphs)


def frozen_copy(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy on the CPU, in float32 and evaluation mode; the trainer's own stays as it is."""
    return copy.deepcopy(module).cpu().float().eval().requires_grad_(False)


def _tensors(sample: Sample, cameras: Sequence[CameraInput]) -> tuple[torch.Tensor, ...]:
    images = tuple(torch.from_numpy(sample.images[camera.name].copy())[None] for camera in cameras)
    return (*images, torch.from_numpy(sample.proprio.copy())[None])


def onnx_graph(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], names: list[str], output: str) -> bytes:
    """Return the ONNX file of `module` with fixed shapes and nothing in it but the graph."""
    with _quiet_exporter():
        program = torch.onnx.export(
            module, inputs, input_names=names, output_names=[output], dynamo=True, verbose=False
        )
    assert program is not None
    model = program.model_proto
    # the exporter notes the source line of every node, with this machine's paths: no business of the robot's
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.graph.name = output
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _parity(
    encode: torch.nn.Module,
    act: torch.nn.Module,
    graphs: Mapping[str, bytes],
    cameras: Sequence[CameraInput],
    samples: Sequence[Sample],
) -> float:
    """Return the greatest absolute difference between torch and ONNX Runtime over features and chunks."""
    first = _tensors(samples[0], cameras)
    with torch.no_grad():
        features = encode(*first)
        chunk = act(features, first[-1])
    names = [camera.name + "_image" for camera in cameras]
    encode_inputs: dict[str, TensorSpec] = {
        name: (tuple(tensor.shape), np.uint8) for name, tensor in zip(names, first, strict=False)
    }
    proprio: dict[str, TensorSpec] = {"proprio": (tuple(first[-1].shape), np.float32)}
    features_spec: dict[str, TensorSpec] = {"features": (tuple(features.shape), np.float32)}
    sessions = (
        OnnxSession(
            graphs["encode"], "encode", inputs={**encode_inputs, **proprio}, outputs=features_spec, provider="cpu"
        ),
        OnnxSession(
            graphs["act"],
            "act",
            inputs={**features_spec, **proprio},
            outputs={"chunk": (tuple(chunk.shape), np.float32)},
            provider="cpu",
        ),
    )
    greatest = 0.0
    for sample in samples:
        tensors = _tensors(sample, cameras)
        with torch.no_grad():
            features = encode(*tensors)
            chunk = act(features, tensors[-1])
        feeds = {name: tensor.numpy() for name, tensor in zip([*names, "proprio"], tensors, strict=True)}
        got_features = sessions[0].run(feeds)["features"]
        got_chunk = sessions[1].run({"features": got_features, "proprio": feeds["proprio"]})["chunk"]
        errors = (np.abs(got_features - features.numpy()).max(), np.abs(got_chunk - chunk.numpy()).max())
        greatest = max(greatest, *(float(error) for error in errors))
    return greatest


def _session(
    graphs: Mapping[str, bytes], entry: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> OnnxSession:
    return OnnxSession(graphs[entry], f"{entry}.onnx", inputs=inputs, outputs=outputs, provider="cpu")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep back what the exporter says on every run, and nothing else it says.

    Torch 2.13 logs that torchvision is absent and deprecates its own tree specifications.
    """
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*", category=FutureWarning)
            yield
    finally:
        registration.setLevel(level)

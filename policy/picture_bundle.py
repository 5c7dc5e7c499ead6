"""A bundle like another one, whose features end with small grey pictures for an encoder that learns online."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from policy.bundle import Bundle
from policy.bundle_writer import check_target, write_bundle
from policy.manifest import LEAST_PICTURE_PX, MAX_FEATURES, MOST_PICTURE_PX, Manifest
from robot.errors import BadInputError

USUAL_PX = 32  # per edge
_BASE = "base_"  # before every name of the bundle's own graph
_OPSET = 18  # the first in which Resize averages what it leaves out


def largest_edge(manifest: Manifest) -> int:
    """Return the greatest edge [px] of pictures that fit behind the features; below 8 none do."""
    room = MAX_FEATURES - manifest.feature_size
    return min(int((room / max(1, len(manifest.cameras))) ** 0.5), MOST_PICTURE_PX)


def write_picture_bundle(folder: Path, bundle: Bundle, *, edge: int | None = None) -> Path:
    """Write `bundle` with pictures of `edge` x `edge` px of each camera behind its features; return the folder.

    It acts as before. Its content is another, so logs and weights of `bundle` are not for it.

    Raises:
        BadInputError: the bundle has no camera or has pictures, they do not fit, or its graph cannot be added to.
    """
    check_target(folder)
    manifest, where = bundle.manifest, f"bundle {bundle.folder}"
    if not manifest.cameras:
        raise BadInputError(f"{where}: takes no camera, so there is no picture to learn from; use it as it is")
    if manifest.pictures is not None:
        raise BadInputError(f"{where}: its features end with pictures already; use it as it is")
    most = largest_edge(manifest)
    edge = min(most, USUAL_PX) if edge is None else edge
    if not LEAST_PICTURE_PX <= edge <= most:
        raise BadInputError(
            f"{where}: pictures of {edge} px (allowed {LEAST_PICTURE_PX} to {most}, for "
            f"{len(manifest.cameras)} cameras behind {manifest.feature_size} features); choose another size"
        )
    files = bundle.files()
    size = manifest.feature_size + len(manifest.cameras) * edge * edge
    try:
        graphs = {"encode": _encode(files[manifest.encode.file], manifest, edge)}
        if manifest.act is not None:
            graphs["act"] = _act(files[manifest.act.file], manifest.feature_size, size)
    except (ValueError, onnx.checker.ValidationError, onnx.version_converter.ConvertError, RuntimeError) as error:
        raise BadInputError(f"{where}: its graphs cannot be added to ({str(error)[:200]}); export it anew") from error
    content: dict[str, Any] = manifest.model_dump(
        mode="json", exclude_none=True, exclude={"encode", "act", "content_sha256", "golden_chunk"}
    )
    content |= {
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "feature_size": size,
        "pictures": {"height": edge, "width": edge},
        "training": {**manifest.training, "pictures_of": bundle.sha256},
    }
    return write_bundle(folder, content, graphs)


def _encode(graph: bytes, manifest: Manifest, edge: int) -> bytes:
    """The encoder with the pictures behind its features, out of the images that it takes anyway."""
    model = compose.add_prefix(_read(graph), _BASE, rename_inputs=False)
    nodes, parts = [], [f"{_BASE}features"]
    for camera in manifest.cameras:
        name = f"pictures_{camera.name}"
        nodes += [
            helper.make_node("Cast", [f"{camera.name}_image"], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"{name}_float", "pictures_colours"], [f"{name}_grey"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{name}_grey", "pictures_channel"], [f"{name}_channel"]),
            helper.make_node(
                "Resize", [f"{name}_channel", "", "", "pictures_sizes"], [f"{name}_small"], mode="linear", antialias=1
            ),
            helper.make_node("Mul", [f"{name}_small", "pictures_level"], [f"{name}_scaled"]),
            helper.make_node("Sub", [f"{name}_scaled", "pictures_middle"], [f"{name}_centred"]),
            helper.make_node("Flatten", [f"{name}_centred"], [name]),
        ]
        parts.append(name)
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=1))
    size = manifest.feature_size + len(manifest.cameras) * edge * edge
    model.graph.node.extend(nodes)
    _give_constants(
        model,
        {
            "pictures_sizes": np.array([1, 1, edge, edge], np.int64),
            "pictures_level": np.array(1 / 127.5, np.float32),
            "pictures_middle": np.array(1.0, np.float32),
            "pictures_colours": np.array([3], np.int64),
            "pictures_channel": np.array([1], np.int64),
        },
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, size)))
    return _checked(model)


def _act(graph: bytes, feature_size: int, size: int) -> bytes:
    """The policy on the features before the pictures."""
    model = compose.add_prefix(_read(graph), _BASE, rename_outputs=False)
    inputs = {value.name.removeprefix(_BASE): value for value in model.graph.input}
    inputs["features"].CopyFrom(helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, size)))
    inputs["proprio"].name = "proprio"
    given = ["features", "pictures_begin", "pictures_end", "pictures_axis"]
    model.graph.node.insert(0, helper.make_node("Slice", given, [f"{_BASE}features"]))
    model.graph.node.insert(1, helper.make_node("Identity", ["proprio"], [f"{_BASE}proprio"]))
    ends = {"pictures_begin": 0, "pictures_end": feature_size, "pictures_axis": 1}
    _give_constants(model, {name: np.array([value], np.int64) for name, value in ends.items()})
    return _checked(model)


def _read(graph: bytes) -> onnx.ModelProto:
    """Raises what onnx raises where the graph cannot be brought to an opset that resizes by averaging."""
    model = onnx.load_model_from_string(graph)
    version = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if version >= _OPSET else onnx.version_converter.convert_version(model, _OPSET)


def _give_constants(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def _checked(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))

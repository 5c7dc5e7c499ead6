"""A small real bundle made without torch, for every test that needs a policy.

`features` are fixed pseudo-random mixtures of each image's mean colour and of `proprio`; `chunk` is a
`tanh` of them, kept within `1 - headroom`. Real graphs, real hashes, the real loader; some ten kilobytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policy.manifest import content_hash

CAMERAS = {"front": (32, 40), "wrist": (32, 40)}  # (height, width) [px]
PROPRIO = {"tcp_position_m": 3, "gripper_width_m": 1}
DIMS = ("x", "y", "z", "yaw", "gripper")
IDENTITY = tuple(float(value) for value in np.eye(4).ravel())


def tiny_manifest(
    *,
    cameras: Mapping[str, tuple[int, int]] = CAMERAS,
    proprio: Mapping[str, int] = PROPRIO,
    dims: tuple[str, ...] = DIMS,
    kind: str = "tcp_delta",
    frame: str = "base",
    chunk_length: int = 4,
    execute_steps: int = 2,
    feature_size: int = 6,
    rate_hz: float = 20.0,
    name: str = "tiny",
    headroom: float = 0.2,
    history: Mapping[str, int] | None = None,
    point_cloud: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Manifest fields as JSON values, without the graphs' entries and hashes."""
    cloud = {} if point_cloud is None else {"point_cloud": dict(point_cloud)}
    gripper = "binary" if "gripper" in dims else "none"
    angles = ("roll", "pitch", "yaw")
    return {
        "schema_version": 1,
        "name": name,
        "version": 1,
        "created_utc": "2026-01-01T00:00:00+00:00",
        "rate_hz": rate_hz,
        "cameras": [{"name": key, "height": h, "width": w, "colour": "rgb"} for key, (h, w) in cameras.items()],
        "proprio": [{"key": key, "size": size} for key, size in proprio.items()],
        **cloud,
        "action": {
            "kind": kind,
            "frame": frame,
            "dims": list(dims),
            "scale": [1.0 if dim == "gripper" else 0.1 if dim in angles else 0.02 for dim in dims],
            "offset": [0.0] * len(dims),
            "headroom": headroom,
            "gripper": gripper,
            "gripper_open_m": 0.08,
            "gripper_closed_m": 0.0,
        },
        "chunk_length": chunk_length,
        "execute_steps": execute_steps,
        "feature_size": feature_size,
        **({"history": dict(history)} if history else {}),
        "calibration": {
            key: {"mount": "base", "T_mount_camera": list(IDENTITY), "fx": 40.0, "fy": 40.0, "cx": w / 2, "cy": h / 2}
            for key, (h, w) in cameras.items()
        },
        "training": {"source": "tests/tiny_bundle.py"},
    }


def make_tiny_bundle(folder: Path, *, seed: int = 0, **fields: Any) -> Path:
    """Write a bundle to `folder` (made if missing) and return it; `fields` go to `tiny_manifest`."""
    manifest = tiny_manifest(**fields)
    graphs = tiny_graphs(manifest, seed)
    return write_tiny_bundle(folder, manifest, graphs)


def write_tiny_bundle(folder: Path, manifest: dict[str, Any], graphs: Mapping[str, bytes]) -> Path:
    """Write any manifest and graphs with right hashes, sensible or not."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = dict(manifest)
    for entry, model in graphs.items():
        manifest[entry] = {"file": f"{entry}.onnx", "sha256": hashlib.sha256(model).hexdigest()}
        (folder / f"{entry}.onnx").write_bytes(model)
    manifest["content_sha256"] = content_hash(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return folder


def tiny_graphs(manifest: Mapping[str, Any], seed: int = 0) -> dict[str, bytes]:
    """The graphs `encode` and `act` for a manifest, weights drawn from `seed`."""
    rng = np.random.default_rng(seed)
    cameras, features = manifest["cameras"], manifest["feature_size"]
    proprio = sum(entry["size"] for entry in manifest["proprio"])
    actions, chunk = len(manifest["action"]["dims"]), manifest["chunk_length"]
    width = 3 * len(cameras) + proprio + (6 if "point_cloud" in manifest else 0)

    nodes, inputs, means = [], [], []
    for camera in cameras:
        image = f"{camera['name']}_image"
        inputs.append(_value(image, (1, camera["height"], camera["width"], 3), TensorProto.UINT8))
        nodes.append(helper.make_node("Cast", [image], [f"{image}_f"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{image}_f", "per_level"], [f"{image}_1"]))
        nodes.append(helper.make_node("ReduceMean", [f"{image}_1", "axes"], [f"{image}_m"], keepdims=0))
        means.append(f"{image}_m")
    if "point_cloud" in manifest:
        inputs.append(_value("point_cloud", (1, manifest["point_cloud"]["points"], 6)))
        nodes.append(helper.make_node("ReduceMean", ["point_cloud", "over_points"], ["cloud_m"], keepdims=0))
        means.append("cloud_m")
    nodes.append(helper.make_node("Concat", [*means, "proprio"], ["seen"], axis=1))
    nodes.append(helper.make_node("MatMul", ["seen", "weight"], ["features"]))
    inputs.append(_value("proprio", (1, proprio)))
    encode = _model(
        nodes,
        inputs,
        [_value("features", (1, features))],
        {
            "per_level": np.float32(1 / 255),
            "axes": np.array([1, 2], np.int64),
            "weight": rng.normal(size=(width, features)).astype(np.float32),
            **({"over_points": np.array([1], np.int64)} if "point_cloud" in manifest else {}),
        },
    )
    nodes = [
        helper.make_node("Concat", ["features", "proprio"], ["seen"], axis=1),
        helper.make_node("MatMul", ["seen", "weight"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "reach"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["chunk"]),
    ]
    act = _model(
        nodes,
        [_value("features", (1, features)), _value("proprio", (1, proprio))],
        [_value("chunk", (1, chunk, actions))],
        {
            "weight": (rng.normal(size=(features + proprio, chunk * actions)) / 4).astype(np.float32),
            "reach": np.float32(1.0 - manifest["action"]["headroom"]),
            "shape": np.array([1, chunk, actions], np.int64),
        },
    )
    return {"encode": encode, "act": act}


def _value(name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[Any] | np.generic],
) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))

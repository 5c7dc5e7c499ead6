"""An exported bundle computes what torch computed, carries nothing of the machine, and appears whole or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy import export
from policy.bundle import load_bundle
from policy.bundle_writer import write_bundle
from policy.export import ExportError, Sample, export_bundle
from policy.manifest import ActionSpec, CameraInput, ProprioInput
from robot.command import CommandKind
from robot.errors import BadInputError

CAMERAS = [CameraInput(name=name, height=24, width=32) for name in ("front", "wrist")]
ACTION = ActionSpec(
    kind=CommandKind.TCP_DELTA,
    frame="base",
    dims=("x", "y", "gripper"),
    scale=(0.02, 0.02, 1.0),
    offset=(0.0, 0.0, 0.0),
    headroom=0.2,
    gripper="binary",
    gripper_open_m=0.08,
    gripper_closed_m=0.0,
)


class Encode(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 5, 3)
        self.head = torch.nn.Linear(2 * 8 * 7 * 10, 12)
        self.norm = torch.nn.LayerNorm(12)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, front: torch.Tensor, wrist: torch.Tensor, proprio: torch.Tensor) -> torch.Tensor:
        seen = [torch.relu(self.conv(image.permute(0, 3, 1, 2).float() / 255.0)) for image in (front, wrist)]
        features = self.drop(self.norm(self.head(torch.cat(seen, 1).flatten(1))))
        return torch.cat([features, proprio], 1)


class Act(torch.nn.Module):
    """Looks at the features only, as many do: `proprio` must stay an input all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(16, 4 * 3)

    def forward(self, features: torch.Tensor, proprio: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(features)).unflatten(1, (4, 3)) * 0.8


class Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@dataclass(frozen=True, kw_only=True)
class Exported:
    folder: Path
    encode: Encode
    act: Act
    messages: list[str]


def samples(count: int = 3) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            images={camera.name: rng.integers(0, 256, (24, 32, 3), np.uint8) for camera in CAMERAS},
            proprio=rng.normal(size=4).astype(np.float32),
        )
        for _ in range(count)
    ]


def fields() -> dict[str, Any]:
    return {
        "name": "small",
        "version": 2,
        "rate_hz": 20,
        "cameras": CAMERAS,
        "proprio": [ProprioInput(key="tcp_position_m", size=3), ProprioInput(key="gripper_width_m", size=1)],
        "action": ACTION,
        "execute_steps": 2,
        "calibration": {},
        "training": {"epochs": 3},
        "samples": samples(),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    encode, act = Encode(), Act()
    handler = Messages()
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(handler)
    try:
        folder = export_bundle(tmp_path_factory.mktemp("export") / "small", encode=encode, act=act, **fields())
    finally:
        logger.removeHandler(handler)
    return Exported(folder=folder, encode=encode, act=act, messages=handler.texts)


def test_the_bundle_computes_what_torch_computed(exported: Exported) -> None:
    bundle = load_bundle(exported.folder, provider="cpu")
    exported.encode.eval()
    for sample in samples():
        images = [torch.from_numpy(sample.images[camera.name])[None] for camera in CAMERAS]
        proprio = torch.from_numpy(sample.proprio)[None]
        with torch.no_grad():
            features = exported.encode(*images, proprio)
            chunk = exported.act(features, proprio)
        got = bundle.encode(sample.images, sample.proprio)
        np.testing.assert_allclose(got, features[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(bundle.act(got, sample.proprio), chunk[0].numpy(), atol=1e-5)
    exported.encode.train()


def test_the_manifest_says_what_was_exported(exported: Exported) -> None:
    manifest = load_bundle(exported.folder, provider="cpu").manifest
    assert (manifest.name, manifest.version, manifest.rate_hz) == ("small", 2, 20.0)
    assert (manifest.feature_size, manifest.chunk_length, manifest.execute_steps) == (16, 4, 2)
    assert manifest.action == ACTION
    assert manifest.training["epochs"] == 3
    assert 0.0 <= float(manifest.training["parity_max_abs_error"]) <= 1e-5


def test_the_trainers_own_modules_stay_as_they_were(exported: Exported) -> None:
    assert exported.encode.training
    assert all(parameter.requires_grad for parameter in exported.encode.parameters())


def test_the_graphs_hold_no_path_of_the_machine_that_exported_them(exported: Exported) -> None:
    for name in ("encode.onnx", "act.onnx"):
        data = (exported.folder / name).read_bytes()
        assert b".py" not in data
        assert str(Path(__file__).parent).encode() not in data


def test_nothing_else_is_left_in_the_folder_or_beside_it(exported: Exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == {"manifest.json", "encode.onnx", "act.onnx"}
    assert list(exported.folder.parent.iterdir()) == [exported.folder]


def test_the_exporters_routine_messages_are_kept_from_the_user(exported: Exported) -> None:
    assert exported.messages == []


def test_a_newer_export_replaces_the_older_one(exported: Exported, tmp_path: Path) -> None:
    graphs = {entry: (exported.folder / f"{entry}.onnx").read_bytes() for entry in ("encode", "act")}
    manifest = load_bundle(exported.folder, provider="cpu").manifest.model_dump(mode="json")
    folder = tmp_path / "policy"
    for version in (1, 2):
        write_bundle(folder, without_hashes({**manifest, "version": version}), graphs)
    assert load_bundle(folder, provider="cpu").manifest.version == 2
    assert list(tmp_path.iterdir()) == [folder]


def test_a_bundle_that_would_not_load_leaves_the_older_one_in_place(exported: Exported, tmp_path: Path) -> None:
    graphs = {entry: (exported.folder / f"{entry}.onnx").read_bytes() for entry in ("encode", "act")}
    manifest = without_hashes(load_bundle(exported.folder, provider="cpu").manifest.model_dump(mode="json"))
    folder = write_bundle(tmp_path / "policy", manifest, graphs)
    before = load_bundle(folder, provider="cpu").sha256
    for broken in ({"chunk_length": 8}, {"rate_hz": 0.0}):
        with pytest.raises(BadInputError):
            write_bundle(folder, {**manifest, **broken}, graphs)
    assert load_bundle(folder, provider="cpu").sha256 == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_field_that_makes_no_manifest_is_named(exported: Exported, tmp_path: Path) -> None:
    manifest = without_hashes(load_bundle(exported.folder, provider="cpu").manifest.model_dump(mode="json"))
    with pytest.raises(BadInputError) as caught:
        write_bundle(tmp_path / "policy", {**manifest, "version": 0}, {"encode": b"", "act": b""})
    assert str(caught.value) == (
        f"bundle {tmp_path / 'policy'}: key 'version' is 0: Input should be greater than or equal to 1; "
        "export the policy again"
    )


def test_a_folder_of_other_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInputError) as caught:
        export_bundle(tmp_path, encode=Encode(), act=Act(), **fields())
    assert str(caught.value) == f"{tmp_path}: holds something else than a bundle; name a new or an empty folder"


def test_a_difference_from_torch_above_the_limit_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {entry: (exported.folder / f"{entry}.onnx").read_bytes() for entry in ("encode", "act")}
    monkeypatch.setattr(
        export, "onnx_graph", lambda module, *_: graphs["encode" if isinstance(module, Encode) else "act"]
    )
    with pytest.raises(ExportError) as caught:
        export_bundle(tmp_path / "policy", encode=Encode(), act=exported.act, **fields())
    assert str(caught.value).startswith("bundle 'small': ONNX Runtime differs from torch by ")
    assert str(caught.value).endswith(" (limit 1e-04); bring the network's inner values to order 1")
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_samples_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        export_bundle(tmp_path / "policy", encode=Encode(), act=Act(), **{**fields(), "samples": []})


def without_hashes(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in ("encode", "act", "content_sha256")}

"""Whatever bytes arrive as weights: they are taken whole and unchanged, or refused with a reason."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import weights, weights_header
from policy.manifest_file import read_manifest
from policy.residual import Dims
from policy.weights import Expected, RefusalReason, ResidualWeights, WeightsRefused, pack, unpack
from teleop.station import ResidualConfig
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import BUNDLE, DIMS, EXPECTED, tiny_message, tiny_tensors

MESSAGE = tiny_message(version=3)
HEADER_SIZE = struct.unpack_from("<Q", MESSAGE)[0]


def refused(message: bytes, expected: Expected = EXPECTED) -> WeightsRefused:
    with pytest.raises(WeightsRefused) as caught:
        unpack(message, expected)
    assert "\n" not in str(caught.value)
    return caught.value


def parts(message: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack_from("<Q", message)[0]
    return json.loads(message[8 : 8 + size]), message[8 + size :]


def joined(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def same(first: ResidualWeights, second: ResidualWeights) -> bool:
    fields = ("version", "run_id", "bundle_sha256", "created_utc", "sha256")
    return all(getattr(first, field) == getattr(second, field) for field in fields) and all(
        first.tensors[name].tobytes() == second.tensors[name].tobytes() for name in first.tensors
    )


def test_what_is_packed_comes_out_unchanged() -> None:
    got = unpack(MESSAGE, EXPECTED)
    assert (got.version, got.run_id, got.bundle_sha256) == (3, "run-1", BUNDLE)
    assert got.created_utc == "2026-01-01T00:00:00+00:00"
    packed = tiny_tensors()
    assert got.tensors.keys() == packed.keys()
    for name, tensor in packed.items():
        assert np.array_equal(got.tensors[name], tensor)
        assert not got.tensors[name].flags.writeable


def test_the_message_is_plain_safetensors() -> None:
    assert safetensors.numpy.load(MESSAGE).keys() == tiny_tensors().keys()


def test_the_hash_depends_on_the_content_only() -> None:
    assert unpack(tiny_message(version=3), EXPECTED).sha256 == unpack(MESSAGE, EXPECTED).sha256
    assert unpack(tiny_message(version=4), EXPECTED).sha256 != unpack(MESSAGE, EXPECTED).sha256


def test_the_first_weights_do_nothing() -> None:
    first = unpack(EXPECTED.initial_weights("run-1"), EXPECTED)
    assert first.version == 0
    ones = np.ones(10, np.float32)
    assert not first.head.residual(ones[:6], ones[:4], ones[:5]).any()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"version": -1}, "weights metadata 'weights_version' is '-1'"),
        ({"run_id": "two words"}, "weights metadata 'run_id' is 'two words'"),
        ({"bundle_sha256": "short"}, "weights metadata 'bundle_sha256' is 'short'"),
        ({"tensors": {"actor.x": np.zeros(1, np.float32)}}, "tensor 'actor.x'"),
        ({"tensors": {"scale": np.zeros(5)}}, "tensor 'scale' (float64)"),
    ],
)
def test_the_learner_cannot_pack_what_no_robot_takes(fields: dict[str, Any], text: str) -> None:
    good: dict[str, Any] = {
        "version": 1,
        "run_id": "r",
        "bundle_sha256": BUNDLE,
        "dims": DIMS,
        "tensors": tiny_tensors(),
    }
    with pytest.raises(ValueError) as caught:
        pack(**{**good, **fields})
    assert str(caught.value).startswith(text)


def test_each_refusal_of_a_whole_message_says_its_reason_in_one_line() -> None:
    nan = tiny_tensors()
    nan["gate.1.0.bias"][2] = np.nan
    strong = {**tiny_tensors(), "scale": np.full(DIMS.action, 0.31, np.float32)}
    flat = {**tiny_tensors(), "normaliser.std": np.zeros(DIMS.observation, np.float32)}
    grey = {**tiny_tensors(), "normaliser.mask": np.full(DIMS.observation, 0.5, np.float32)}
    short = {name: tensor for name, tensor in tiny_tensors().items() if name != "actor.out.bias"}
    for tensors, line in [
        (nan, "weights refused (not_finite): tensor 'gate.1.0.bias' has NaN or infinity"),
        (
            strong,
            "weights refused (out_of_range): scale is (0.31, 0.31, 0.31, 0.31, 0.31), outside 0 to "
            "(0.3, 0.3, 0.3, 0.3, 0.3) in action dimension 0; start the learner with the robot's residual.scale",
        ),
        (flat, "weights refused (out_of_range): normaliser.std must be >= 1e-6 and clip within (0, 1000]"),
        (grey, "weights refused (out_of_range): normaliser.mask must hold 0 and 1 only"),
        (short, "weights refused (shape): tensor 'actor.out.bias' is missing"),
    ]:
        assert str(refused(tiny_message(tensors=tensors))) == line


def test_authority_on_a_dimension_that_the_station_left_to_the_base_is_refused() -> None:
    expected = Expected(dims=DIMS, bundle_sha256=BUNDLE, max_scale=(0.4, 0.4, 0.5, 0.0, 0.0))
    allowed = {**tiny_tensors(), "scale": np.array([0.4, 0.4, 0.5, 0.0, 0.0], np.float32)}
    assert unpack(tiny_message(tensors=allowed), expected).version == 1
    yaw = {**tiny_tensors(), "scale": np.array([0.4, 0.4, 0.5, 0.1, 0.0], np.float32)}
    refusal = refused(tiny_message(tensors=yaw), expected)
    assert refusal.reason is RefusalReason.OUT_OF_RANGE
    assert str(refusal) == (
        "weights refused (out_of_range): scale is (0.4, 0.4, 0.5, 0.1, 0), outside 0 to (0.4, 0.4, 0.5, 0, 0) in "
        "action dimension 3; start the learner with the robot's residual.scale"
    )


def test_weights_without_critics_are_refused_where_the_station_has_a_gate() -> None:
    gated = replace(EXPECTED, gate=True)
    without = tiny_tensors(heads=0)
    assert str(refused(tiny_message(tensors=without), gated)) == (
        "weights refused (out_of_range): no critics for the gate that the station asks for, so that nothing would hold "
        "the residual back; set residual.gate for the learner, too, or set it to false here"
    )
    assert unpack(tiny_message(tensors=without), EXPECTED).head.heads == 0
    assert unpack(tiny_message(), gated).head.heads == 2
    assert unpack(gated.initial_weights("run-1"), gated).version == 0  # nothing there to hold back


@pytest.mark.parametrize("gate", [False, True])
def test_a_gate_is_expected_where_the_station_says_so(tmp_path: Path, gate: bool) -> None:
    manifest, _ = read_manifest(make_tiny_bundle(tmp_path / "bundle"))
    assert Expected.of(manifest, ResidualConfig(scale=EXPECTED.max_scale, gate=gate)).gate == gate
    assert not Expected.of(manifest, None).gate


def test_weights_for_another_bundle_are_refused() -> None:
    refusal = refused(tiny_message(bundle_sha256="c" * 64))
    assert refusal.reason is RefusalReason.BUNDLE
    assert str(refusal) == (
        "weights refused (bundle): trained on bundle cccccccccccc, this robot runs bbbbbbbbbbbb; "
        "start the learner with the robot's bundle"
    )


def test_weights_of_other_dimensions_are_refused() -> None:
    other = Expected(dims=Dims(features=7, proprio=3, action=5), bundle_sha256=BUNDLE, max_scale=(0.3,) * 5)
    assert refused(MESSAGE, other).reason is RefusalReason.SHAPE


def test_another_schema_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SCHEMA_VERSION", 2)
    newer = tiny_message()
    monkeypatch.undo()
    assert str(refused(newer)) == (
        "weights refused (schema): schema_version is 2 (this robot reads 1); run the learner of the same release"
    )


@pytest.mark.parametrize("key", ["weights_version", "run_id", "created_utc"])
def test_the_checksum_covers_the_metadata(key: str) -> None:
    header, data = parts(MESSAGE)
    header["__metadata__"][key] = "2027" + header["__metadata__"][key][4:] if key == "created_utc" else "9"
    assert refused(joined(header, data)).reason is RefusalReason.CHECKSUM


def test_the_checksum_covers_every_tensor() -> None:
    header, data = parts(MESSAGE)
    for name, entry in header.items():
        if name != "__metadata__":
            changed = bytearray(data)
            changed[entry["data_offsets"][0]] ^= 1
            assert refused(joined(header, bytes(changed))).reason is RefusalReason.CHECKSUM


def test_two_tensors_that_swap_places_are_found() -> None:
    header, data = parts(MESSAGE)
    header["gate.0.0.bias"], header["gate.1.0.bias"] = header["gate.1.0.bias"], header["gate.0.0.bias"]
    assert refused(joined(header, data)).reason is RefusalReason.CHECKSUM


def test_a_message_above_the_limit_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_header, "MAX_MESSAGE_BYTES", len(MESSAGE) - 1)
    assert refused(MESSAGE).reason is RefusalReason.TOO_LARGE


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 60_000,
        b"{}",
        b"[]",
        b"null",
        b'{"__metadata__": []}',
        b'{"__metadata__": {}, "__metadata__": {}}',
        b"\xff\xfe",
        b"9" * 60_000,
    ],
)
def test_a_header_that_is_no_weights_header_is_malformed(header: bytes) -> None:
    assert refused(joined(header, b"")).reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 1 << 20, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_lying_header_length_is_malformed(size: int) -> None:
    refusal = refused(struct.pack("<Q", size) + MESSAGE[8:])
    assert refusal.reason is RefusalReason.MALFORMED
    if size > len(MESSAGE):
        assert str(refusal) == (
            f"weights refused (malformed): not safetensors: a header of {size} bytes (at most 65536, "
            f"message has {len(MESSAGE)})"
        )


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64", "shape": [5], "data_offsets": [0, 40]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [-5], "data_offsets": [0, -20]},
        {"dtype": "F32", "shape": [5.0], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 20, 40]},
        {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [5], "data_offsets": [4, 24]},
        {"dtype": ["F32"], "shape": [5], "data_offsets": [0, 20]},
        [],
        None,
    ],
)
def test_a_lying_tensor_entry_is_malformed(entry: Any) -> None:
    header, data = parts(MESSAGE)
    header["scale"] = entry
    refusal = refused(joined(header, data))
    assert refusal.reason is RefusalReason.MALFORMED
    assert "not safetensors" not in str(refusal)  # found before any parser saw it


def test_a_shape_that_its_bytes_do_not_fill_is_malformed() -> None:
    header, data = parts(MESSAGE)
    header["scale"]["shape"] = [DIMS.action + 1]
    assert str(refused(joined(header, data))) == (
        "weights refused (malformed): tensor 'scale' has another length than its shape says"
    )


def test_two_tensors_over_the_same_bytes_are_malformed() -> None:
    header, data = parts(MESSAGE)
    header["gate.0.0.bias"]["data_offsets"] = header["gate.1.0.bias"]["data_offsets"]
    assert str(refused(joined(header, data))) == "weights refused (malformed): tensors overlap or leave gaps"


@pytest.mark.parametrize("name", ["actor.0.running_mean", "optimiser.step", "scale\n", "actor.٣.bias"])
def test_an_unknown_tensor_is_malformed(name: str) -> None:
    header, data = parts(MESSAGE)
    header[name] = header.pop("scale")
    assert refused(joined(header, data)).reason is RefusalReason.MALFORMED


def test_every_truncated_message_is_refused() -> None:
    for length in [*range(0, HEADER_SIZE + 40), *range(HEADER_SIZE + 40, len(MESSAGE), 97), len(MESSAGE) - 1]:
        refused(MESSAGE[:length])


def test_bytes_at_the_end_are_refused() -> None:
    assert refused(MESSAGE + b"\0").reason is RefusalReason.MALFORMED


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, HEADER_SIZE + 8), st.integers(0, len(MESSAGE) - 1)), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_a_mutated_message_is_refused_or_means_the_same(changes: list[tuple[int, int]]) -> None:
    message = bytearray(MESSAGE)
    for position, value in changes:
        message[position] = value
    try:
        got = unpack(bytes(message), EXPECTED)
    except WeightsRefused:
        return
    assert same(got, unpack(MESSAGE, EXPECTED))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(message: bytes) -> None:
    refused(message)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.bundle import load_bundle
from policy.bundle_writer import write_bundle
from policy.golden import LIMIT, golden_chunk, golden_difference, golden_observation
from robot.errors import BadInputError
from tests.tiny_bundle import make_tiny_bundle, tiny_graphs, tiny_manifest, write_tiny_bundle


def test_an_exported_bundle_gives_its_golden_action_and_another_policy_does_not(tmp_path: Path) -> None:
    content = tiny_manifest()
    bundle = load_bundle(write_bundle(tmp_path / "first", content, tiny_graphs(content)), "cpu")
    difference = golden_difference(bundle)
    assert difference is not None
    assert difference < LIMIT / 10.0
    # as if the runtime here computed other weights
    other = load_bundle(make_tiny_bundle(tmp_path / "other", seed=1), "cpu")
    foreign = content | {"golden_chunk": [list(row) for row in golden_chunk(other)]}
    folder = write_tiny_bundle(tmp_path / "foreign", foreign, tiny_graphs(content))
    difference = golden_difference(load_bundle(folder, "cpu"))
    assert difference is not None
    assert difference > LIMIT


def test_a_bundle_without_one_says_so(tmp_path: Path) -> None:
    assert golden_difference(load_bundle(make_tiny_bundle(tmp_path), "cpu")) is None


def test_a_golden_chunk_of_another_shape_is_refused(tmp_path: Path) -> None:
    content = tiny_manifest() | {"golden_chunk": [[0.0] * 5] * 3}
    folder = write_tiny_bundle(tmp_path, content, tiny_graphs(content))
    with pytest.raises(BadInputError, match="golden_chunk is no chunk of 4 actions of 5 numbers"):
        load_bundle(folder)


def test_the_golden_observation_is_of_the_bundles_own_sizes_and_no_blank(tmp_path: Path) -> None:
    cloud = {
        "points": 32, "voxel_m": 0.01, "workspace_min_m": [0.2, -0.3, 0.0], "workspace_max_m": [0.6, 0.3, 0.4]
    }  # fmt: skip
    manifest = load_bundle(make_tiny_bundle(tmp_path, point_cloud=cloud), "cpu").manifest
    images, proprio, points = golden_observation(manifest)
    assert {name: image.shape for name, image in images.items()} == {"front": (32, 40, 3), "wrist": (32, 40, 3)}
    assert not np.array_equal(images["front"], images["wrist"])
    assert proprio.shape == (manifest.proprio_size,)
    assert points is not None
    assert (points[:, :3] >= np.float32([0.2, -0.3, 0.0])).all()
    assert (points[:, :3] <= np.float32([0.6, 0.3, 0.4])).all()

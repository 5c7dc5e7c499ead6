"""Residual weights with pseudo-random values and real messages of them, for every test that needs some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.residual import Dims, zero_tensors
from policy.weights import Expected, pack
from policy.weights_gate import GoldenObservations

DIMS = Dims(features=6, proprio=4, action=5)
BUNDLE = "b" * 64
EXPECTED = Expected(dims=DIMS, bundle_sha256=BUNDLE, max_scale=(0.3,) * DIMS.action)


def tiny_tensors(
    dims: Dims = DIMS, *, seed: int = 0, width: int = 8, depth: int = 2, heads: int = 2, scale: float = 0.2
) -> dict[str, NDArray[np.float32]]:
    """Tensors of a head with `depth` hidden layers and a gate of `heads` critics built alike."""
    rng = np.random.default_rng(seed)
    tensors = zero_tensors(dims, np.full(dims.action, scale, np.float32))
    tensors["normaliser.mean"] = rng.normal(size=dims.observation).astype(np.float32)
    tensors["normaliser.std"] = rng.uniform(0.5, 2.0, dims.observation).astype(np.float32)
    for prefix, outputs in [("actor", dims.action), *((f"gate.{head}", 1) for head in range(heads))]:
        size = dims.observation + dims.action
        for layer in range(depth):
            tensors[f"{prefix}.{layer}.weight"] = rng.normal(size=(width, size)).astype(np.float32)
            tensors[f"{prefix}.{layer}.bias"] = rng.normal(size=width).astype(np.float32)
            tensors[f"{prefix}.{layer}.norm.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
            tensors[f"{prefix}.{layer}.norm.bias"] = rng.normal(size=width).astype(np.float32)
            size = width
        tensors[f"{prefix}.out.weight"] = (rng.normal(size=(outputs, size)) * 0.2).astype(np.float32)
        tensors[f"{prefix}.out.bias"] = (rng.normal(size=outputs) * 0.2).astype(np.float32)
    return tensors


def tiny_message(
    version: int = 1,
    tensors: dict[str, NDArray[np.float32]] | None = None,
    *,
    bundle_sha256: str = BUNDLE,
    run_id: str = "run-1",
) -> bytes:
    """A message that a robot with `EXPECTED` accepts, unless `tensors` or the bundle say otherwise."""
    return pack(
        version=version,
        run_id=run_id,
        bundle_sha256=bundle_sha256,
        dims=DIMS,
        tensors=tiny_tensors() if tensors is None else tensors,
        created_utc="2026-01-01T00:00:00+00:00",
    )


def tiny_golden(count: int = 8, dims: Dims = DIMS) -> GoldenObservations:
    """Recorded observations, drawn from a fixed seed."""
    rng = np.random.default_rng(7)
    return GoldenObservations(
        features=rng.normal(size=(count, dims.features)).astype(np.float32),
        proprio=rng.normal(size=(count, dims.proprio)).astype(np.float32),
        base_actions=rng.uniform(-0.8, 0.8, (count, dims.action)).astype(np.float32),
    )

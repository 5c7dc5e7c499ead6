"""Times a bundle's two entry points and a residual head of 2x256 with a two-head gate; prints one JSON line.

OMP_NUM_THREADS=1 python benchmarks/policy_inference.py BUNDLE --runs 2000
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from policy.bundle import load_bundle
from policy.residual import Dims, Float, ResidualHead, zero_tensors

WIDTH, GATE_HEADS = 256, 2


def percentiles_ms(step: Callable[[], object], runs: int) -> dict[str, float]:
    """Return p50 and p99 of one call of `step` [ms]."""
    for _ in range(20):
        step()
    taken_s = []
    for _ in range(runs):
        begun_s = time.perf_counter()
        step()
        taken_s.append(time.perf_counter() - begun_s)
    p50, p99 = np.percentile(taken_s, [50, 99]) * 1e3
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def random_tensors(
    dims: Dims, rng: np.random.Generator, *, width: int, gate_heads: int, scale: Float, depth: int = 2
) -> dict[str, Float]:
    """Return tensors of a head with the layers that the learner trains, giving small residuals."""
    tensors = zero_tensors(dims, scale)
    for prefix, outputs in [("actor", dims.action), *((f"gate.{head}", 1) for head in range(gate_heads))]:
        size = dims.observation + dims.action
        for layer in range(depth):
            tensors[f"{prefix}.{layer}.weight"] = rng.normal(size=(width, size)).astype(np.float32)
            tensors[f"{prefix}.{layer}.norm.weight"] = np.ones(width, np.float32)
            for name in (f"{prefix}.{layer}.bias", f"{prefix}.{layer}.norm.bias"):
                tensors[name] = np.zeros(width, np.float32)
            size = width
        tensors[f"{prefix}.out.weight"] = (rng.normal(size=(outputs, size)) * 0.05).astype(np.float32)
        tensors[f"{prefix}.out.bias"] = np.zeros(outputs, np.float32)
    return tensors


def main() -> None:
    """Time everything on random input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    begun_s = time.perf_counter()
    bundle = load_bundle(options.bundle)
    load_ms = (time.perf_counter() - begun_s) * 1e3
    manifest = bundle.manifest
    rng = np.random.default_rng(0)
    images = {
        camera.name: rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8) for camera in manifest.cameras
    }
    proprio = rng.normal(size=manifest.proprio_size).astype(np.float32)
    features = bundle.encode(images, proprio)
    base = bundle.act(features, proprio)[0]
    dims = Dims(features=manifest.feature_size, proprio=manifest.proprio_size, action=manifest.action.size)
    scale = np.full(dims.action, 0.2, np.float32)
    head = ResidualHead(dims, random_tensors(dims, rng, width=WIDTH, gate_heads=GATE_HEADS, scale=scale))

    def residual_and_gate() -> object:
        residual = head.residual(features, proprio, base)
        return head.values(features, proprio, np.stack([base, base + residual]))

    print(
        json.dumps(
            {
                "provider": bundle.provider,
                "load_ms": round(load_ms, 2),
                "encode": percentiles_ms(lambda: bundle.encode(images, proprio), options.runs),
                "act": percentiles_ms(lambda: bundle.act(features, proprio), options.runs),
                "residual": percentiles_ms(lambda: head.residual(features, proprio, base), options.runs),
                "residual_and_gate": percentiles_ms(residual_and_gate, options.runs),
            }
        )
    )


if __name__ == "__main__":
    main()

"""One observation that everybody can make, and the chunk that the policy gave on it when it was exported.

A bundle's hashes say that its files are whole; this says that they compute here what they computed there, whatever
runtime, processor or GPU has them now. The observation is arithmetic, so that the manifest needs no picture in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.bundle import Bundle
from policy.manifest import Manifest

LIMIT = 1e-3  # normalised action; other machines and GPUs round differently, in the order of 1e-5
_DECIMALS = 4  # of what is kept: rounding of another machine gives the same bundle


def golden_observation(
    manifest: Manifest,
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32], NDArray[np.float32] | None]:
    """Return images (H, W, 3) by camera, proprioception (P,) and, where the policy takes one, a cloud (N, 6)."""
    images = {}
    for number, camera in enumerate(manifest.cameras, start=1):
        y, x, colour = np.indices((camera.height, camera.width, 3))
        blocks = (x * 5 // camera.width + y * 3 // camera.height) * 40  # large areas, as scenes have them
        images[camera.name] = ((blocks + 7 * x + 13 * y + 29 * colour * number) % 256).astype(np.uint8)
    proprio = ((37 * np.arange(manifest.proprio_size) % 101) / 200.0).astype(np.float32)
    wanted = manifest.point_cloud
    if wanted is None:
        return images, proprio, None
    places = (np.outer(np.arange(wanted.points), [37, 59, 83, 11, 17, 23]) % 97) / 96.0
    least = np.array([*wanted.workspace_min_m, 0.0, 0.0, 0.0])
    most = np.array([*wanted.workspace_max_m, 1.0, 1.0, 1.0])
    return images, proprio, (least + places * (most - least)).astype(np.float32)


def golden_chunk(bundle: Bundle) -> tuple[tuple[float, ...], ...]:
    """Return what the policy gives on the golden observation, (H, A), rounded as a manifest keeps it.

    Raises:
        PolicyError: its chunks come from a remote policy, or the runtime failed.
    """
    return tuple(tuple(row) for row in np.round(_chunk(bundle), _DECIMALS).tolist())


def golden_difference(bundle: Bundle) -> float | None:
    """Return how far the policy is from its golden chunk here, the greatest of all values; None without a stored one.

    Raises:
        PolicyError: the runtime failed.
    """
    stored = bundle.manifest.golden_chunk
    if stored is None:
        return None
    return float(np.abs(_chunk(bundle) - np.array(stored)).max())


def _chunk(bundle: Bundle) -> NDArray[np.float64]:
    images, proprio, cloud = golden_observation(bundle.manifest)
    return bundle.act(bundle.encode(images, proprio, cloud), proprio).astype(np.float64)

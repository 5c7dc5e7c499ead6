"""The residual head that drives now, and how newer ones come in between two ticks."""

from __future__ import annotations

from policy.bundle import Bundle
from policy.residual import Dims, Float, ResidualHead
from policy.run_folder import RunFolder
from policy.weights import Expected, initial_weights, unpack


class WeightsInForce:
    """Weights that stay as they are. `LearnedWeights` takes newer ones from a learner.

    Attributes:
        head: the residual head.
        version: of its message.
        sha256: of its message in the run folder.
    """

    def __init__(self, head: ResidualHead, version: int, sha256: str) -> None:
        self.head, self.version, self.sha256 = head, version, sha256

    def refresh(self) -> None:
        """Take over newer weights if there are any; called between two ticks."""

    def distrust(self) -> None:
        """Hear that the head gave something else than numbers for a sound observation in this tick."""

    def taken_over(self) -> dict[int, str]:
        """Versions taken over since the last call -> SHA-256 of their files in the run folder."""
        return {}


def fixed_weights(bundle: Bundle, run: RunFolder, scale: Float, message: bytes | None) -> WeightsInForce:
    """Weights from a message, or a residual of exactly zero.

    Raises:
        WeightsRefused: the message does not fit the bundle or its checksum is wrong.
    """
    manifest = bundle.manifest
    dims = Dims(features=manifest.feature_size, proprio=manifest.proprio_size, action=manifest.action.size)
    if message is None:
        message = initial_weights(run_id=run.run_id, bundle_sha256=bundle.sha256, dims=dims, scale=scale)
    expected = Expected(dims=dims, bundle_sha256=bundle.sha256, max_scale=tuple(scale.tolist()))
    weights = unpack(message, expected)
    return WeightsInForce(weights.head, weights.version, run.store_weights(weights.version, message))

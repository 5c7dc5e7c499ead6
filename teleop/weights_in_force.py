"""The residual head that drives now, and how newer ones come in between two ticks."""

from __future__ import annotations

from policy.residual import ResidualHead
from policy.run_folder import RunFolder
from policy.weights import Expected, ResidualWeights, WeightsRefused, unpack
from robot.errors import BadInputError


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


def weights_to_start_from(message: bytes, expected: Expected) -> ResidualWeights:
    """Return the weights that a run begins or goes on with.

    Raises:
        BadInputError: the message does not fit the bundle or what the station allows, or its checksum is wrong.
    """
    try:
        return unpack(message, expected)
    except WeightsRefused as refusal:
        said = str(refusal).removeprefix("weights ")
        raise BadInputError(f"weights to start from: {said}; name others with --weights") from None


def fixed_weights(expected: Expected, run: RunFolder, message: bytes | None) -> WeightsInForce:
    """Weights from a message, or a residual of exactly zero.

    Raises:
        BadInputError: as of `weights_to_start_from`.
    """
    message = message or expected.initial_weights(run.run_id)
    weights = weights_to_start_from(message, expected)
    return WeightsInForce(weights.head, weights.version, run.store_weights(weights.version, message))

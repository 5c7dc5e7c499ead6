"""The residual head that drives now, and how newer ones come in between two ticks."""

from __future__ import annotations

from policy.residual import ResidualHead


class WeightsInForce:
    """Fixed weights. `LearnedWeights` takes newer ones from a learner."""

    def __init__(self, head: ResidualHead, version: int) -> None:
        self.head, self.version = head, version

    def refresh(self) -> None:
        """Take over newer weights if there are any; called between two ticks."""

    def taken_over(self) -> dict[int, str]:
        """Versions taken over since the last call -> SHA-256 of their files in the run folder."""
        return {}

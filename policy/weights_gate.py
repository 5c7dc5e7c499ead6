"""Decides which weights drive the arm: newer, whole, sane on recorded observations, and never without a way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from policy.residual import Float
from policy.weights import Expected, RefusalReason, ResidualWeights, WeightsRefused, unpack

SATURATED_ABOVE = 0.99


@dataclass(frozen=True, kw_only=True)
class GoldenObservations:
    """Recorded observations on which new weights must behave before they drive.

    Attributes:
        features: shape (N, F), float32.
        proprio: shape (N, P), float32.
        base_actions: shape (N, A), float32, normalised.
    """

    features: Float
    proprio: Float
    base_actions: Float


class WeightsGate:
    """Holds the weights in force; a refused message leaves them as they are.

    Call it between two ticks: checking a head of 2x256 takes milliseconds, not microseconds.
    """

    def __init__(
        self,
        initial: bytes,
        *,
        expected: Expected,
        golden: GoldenObservations,
        runs: Collection[str],
        max_saturated_share: float = 0.5,
        newest: int = -1,
    ) -> None:
        """Start with the weights `initial`, usually `weights.initial_weights`; a person may start from another run's.

        Args:
            initial: message in force until a newer one is accepted, and the last way back.
            expected: what every message must match.
            golden: at least one observation.
            runs: run ids that newer weights may name; versions of other runs are counted apart and cannot be compared.
            max_saturated_share: greatest share of golden outputs with |tanh| above 0.99; a saturated head
                pushes with all it has whatever it sees.
            newest: version that newer ones must exceed, where `initial` is an older one on purpose.

        Raises:
            WeightsRefused: `initial` itself is refused.
            ValueError: the golden observations are empty or of other sizes than `expected`.
        """
        count = len(golden.features)
        dims = expected.dims
        shapes = (golden.features.shape, golden.proprio.shape, golden.base_actions.shape)
        if count < 1 or shapes != ((count, dims.features), (count, dims.proprio), (count, dims.action)):
            raise ValueError(f"golden observations are {shapes}, must be N >= 1 of {dims}")
        self._expected = expected
        self._golden = golden
        self._runs = frozenset(runs)
        self._max_saturated_share = max_saturated_share
        self._refusals: Counter[RefusalReason] = Counter()
        self._newest = -1
        self._accepted = 0
        self._current = self._checked(initial)
        self._newest = max(newest, self._current.version if self._current.run_id in self._runs else -1)
        self._previous = self._current

    @property
    def current(self) -> ResidualWeights:
        """The weights in force."""
        return self._current

    @property
    def accepted(self) -> int:
        """Messages accepted since the start, the initial one left out."""
        return self._accepted

    @property
    def refusals(self) -> Mapping[RefusalReason, int]:
        """Messages refused since the start, by reason."""
        return MappingProxyType(self._refusals)

    def accept(self, message: bytes) -> ResidualWeights:
        """Put the weights in `message` in force and return them.

        Raises:
            WeightsRefused: with the reason; it is counted, and the weights in force stay.
        """
        try:
            weights = self._checked(message)
            if weights.run_id not in self._runs:
                raise WeightsRefused(
                    RefusalReason.RUN,
                    f"learned for run {weights.run_id!r}, this robot takes those of {', '.join(sorted(self._runs))}; "
                    "connect it to its own learner",
                )
        except WeightsRefused as refusal:
            self._refusals[refusal.reason] += 1
            raise
        self._previous, self._current = self._current, weights
        self._newest = weights.version
        self._accepted += 1
        return weights

    def rollback(self) -> ResidualWeights:
        """Put the weights before these in force again and return them; done twice, it stays there.

        The version taken back is not accepted again.
        """
        self._current = self._previous
        return self._current

    def _checked(self, message: bytes) -> ResidualWeights:
        weights = unpack(message, self._expected)
        if weights.version <= self._newest:
            raise WeightsRefused(
                RefusalReason.OLDER, f"version {weights.version} is not newer than {self._newest}, accepted before"
            )
        saturated = []
        golden = zip(self._golden.features, self._golden.proprio, self._golden.base_actions, strict=True)
        with np.errstate(all="ignore"):  # overflow shows as not finite below
            for features, proprio, base in golden:
                squashed = weights.head.squashed(features, proprio, base)
                residual = weights.head.residual(features, proprio, base)
                values = weights.head.values(features, proprio, np.stack([base, base + residual]))
                if not (np.isfinite(residual).all() and np.isfinite(values).all()):
                    raise WeightsRefused(
                        RefusalReason.NOT_FINITE, f"version {weights.version} gives NaN or infinity on a recorded tick"
                    )
                saturated.append(np.abs(squashed) > SATURATED_ABOVE)
        share = float(np.mean(saturated))
        if share > self._max_saturated_share:
            raise WeightsRefused(
                RefusalReason.SATURATED,
                f"version {weights.version} is at its bound in {share:.0%} of recorded outputs "
                f"(limit {self._max_saturated_share:.0%}); lower the actor's learning rate",
            )
        return weights

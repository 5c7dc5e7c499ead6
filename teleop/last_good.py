"""A run never ends below the base it started from: the newest weights that are not worse than the base stay.

What is measured is paired, each layout with the base and with the weights. Weights that fail are not argued with: the
search goes back, from the newest to the first, by halves, and ends at the base alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from teleop.evaluation import Evaluation
from teleop.statistics import PairedDifference, paired_difference

MARGIN = 0.05  # a success rate that may be lower by so much in the worst case of its interval
Measure = Callable[[bytes | None], Evaluation]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which earlier weights a run goes back to.

    Attributes:
        version: of the weights; 0 for the base alone.
        message: of the weights; None for the base alone.
        tried: version -> how it compares with the base, newest first; without version 0, which is the base.
    """

    version: int
    message: bytes | None
    tried: dict[int, PairedDifference]

    def line(self, newest: int, found: PairedDifference) -> str:
        """Say in one line what became of the `newest` weights, which were `found` worse than the base."""
        kept = f"weights {self.version} ({_in_words(self.tried[self.version])})" if self.version else "the base alone"
        return f"weights {newest} are worse than the base ({_in_words(found)}); rolled back to {kept}"


def last_good(
    versions: Sequence[int], message: Callable[[int], bytes], measure: Measure, *, margin: float = MARGIN
) -> Kept:
    """Return the newest of some of `versions` that is not worse than the base, or the base.

    Tried are the newest, then the one half way to the first, and so on: about log2 of their number.

    Args:
        versions: that the run had in force, ascending, without 0.
        message: version -> weights message.
        measure: runs a controller alone on layouts that are the same each time; None is the base.
        margin: see `PairedDifference.not_worse`.
    """
    tried: dict[int, PairedDifference] = {}
    base: Evaluation | None = None
    at = len(versions)
    while at > 0:
        version = versions[at - 1]
        weights = message(version)
        base = base or measure(None)
        tried[version] = compare(measure(weights), base)
        if tried[version].not_worse(margin):
            return Kept(version=version, message=weights, tried=tried)
        at //= 2
    return Kept(version=0, message=None, tried=tried)


def compare(new: Evaluation, old: Evaluation) -> PairedDifference:
    """Compare two controllers on the layouts that both were measured on."""
    return paired_difference(_won(new), _won(old))


def _won(evaluation: Evaluation) -> dict[int, bool]:
    return {layout: outcome == "success" for layout, outcome in evaluation.outcomes.items()}


def _in_words(found: PairedDifference) -> str:
    return (
        f"{100 * found.difference:+.0f} points against the base on {found.episodes} layouts, 95 % interval "
        f"{100 * found.low:+.0f} to {100 * found.high:+.0f}"
    )

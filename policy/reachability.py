"""How far the person's corrections lie beyond what the residual may do, per action dimension, and what to do about it.

A correction beyond the bound teaches nothing on that dimension (`policy.residual_learner` leaves it out rather than
clip it), so a station whose bound is too tight does not learn however long a person drives. This meter says so.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from policy.learner_episode import EpisodeArrays, Floats

OUTLIER_SHARE = 0.10  # of the corrections that no bound is made for
WIDEST_SCALE = 1.0  # a residual that may reverse the whole base action is no correction of it any more
MEANT = 0.05  # a smaller difference from the base is no wish, whatever the bound
GRIPPER_MEANT = 1.0  # between the base's action and a person's open or close: beyond it they are on different sides
MIN_TICKS = 50  # fewer tell nothing


class Advice(enum.StrEnum):
    """What to do about a dimension."""

    NONE = "within reach"
    FEW = "too few corrections to tell"
    WIDEN = "widen the scale"
    GRIPPER = "let the residual work the gripper"
    PERSON = "leave it to the person, or retrain the base"


@dataclass(frozen=True, kw_only=True)
class DimensionReach:
    """One action dimension.

    Attributes:
        name: of the dimension.
        scale: bound of the residual, normalised; infinite where it may choose the gripper.
        ticks: corrected ticks that were looked at.
        beyond: share of them with |human - base| above the bound; NaN without any.
        wanted: |human - base| that all but a tenth of them stay within, normalised; NaN without any.
        advice: what to do.
    """

    name: str
    scale: float
    ticks: int
    beyond: float
    wanted: float
    advice: Advice

    def line(self) -> str:
        """Return one line for a person."""
        if self.advice is Advice.FEW:
            return f"{self.name}: {self.advice} ({self.ticks} ticks)"
        text = f"{self.name}: {100 * self.beyond:.0f} % of {self.ticks} corrected ticks beyond the bound {self.scale:g}"
        match self.advice:
            case Advice.NONE:
                return text
            case Advice.WIDEN:
                return f"{text}; widen residual.scale to {math.ceil(20 * self.wanted) / 20:g}"
            case Advice.GRIPPER:
                return f"{text}; set residual.gripper = true"
            case _:
                return f"{text}, up to {self.wanted:.2f}; {self.advice}"


@dataclass(frozen=True, kw_only=True)
class Reachability:
    """What the corrections of a run or of a learner's episodes ask of the residual, one entry per dimension."""

    dimensions: tuple[DimensionReach, ...]

    @classmethod
    def of(cls, misses: Floats, names: Sequence[str], scale: Sequence[float], *, gripper: bool = False) -> Self:
        """Measure corrections.

        Args:
            misses: |human - base| on the ticks that a person drove, (N, A), normalised; see `corrections`.
            names: of the action's dimensions, (A,).
            scale: bound of the residual per dimension, (A,), normalised.
            gripper: the residual chooses the gripper's action itself, so that no bound holds there.
        """
        if not len(names) == len(scale) == misses.shape[1]:
            raise ValueError(f"{len(names)} dimensions, {len(scale)} bounds and corrections of {misses.shape[1]}")
        bounds = [math.inf if gripper and name == "gripper" else s for name, s in zip(names, scale, strict=True)]
        return cls(dimensions=tuple(_dimension(names[i], bounds[i], misses[:, i]) for i in range(len(names))))

    def summary(self) -> dict[str, dict[str, float | int | str | None]]:
        """Return it as JSON by dimension; what is not known is None."""
        return {
            found.name: {
                "scale": found.scale if math.isfinite(found.scale) else None,
                "ticks": found.ticks,
                "beyond": round(found.beyond, 4) if found.ticks else None,
                "wanted": round(found.wanted, 4) if found.ticks else None,
                "advice": str(found.advice),
            }
            for found in self.dimensions
        }

    def lines(self) -> list[str]:
        """Return one line for each dimension that something has to be done about."""
        return [found.line() for found in self.dimensions if found.advice not in (Advice.NONE, Advice.FEW)]


def corrections(episodes: Iterable[EpisodeArrays], action_size: int) -> Floats:
    """Return |human - base| (N, A), normalised, on the ticks that a person drove and the base had an action for."""
    parts = [np.zeros((0, action_size), np.float32)]
    for episode in episodes:
        driven = episode.driven & np.isfinite(episode.base).all(axis=1)
        parts.append(np.abs(episode.human[driven] - episode.base[driven]))
    return np.concatenate(parts)


def _dimension(name: str, scale: float, misses: Floats) -> DimensionReach:
    ticks = len(misses)
    least = max(scale, GRIPPER_MEANT if name == "gripper" else MEANT)
    beyond = float(np.mean(misses > np.float32(least))) if ticks else math.nan
    wanted = float(np.quantile(misses, 1.0 - OUTLIER_SHARE)) if ticks else math.nan
    if ticks < MIN_TICKS:
        advice = Advice.FEW
    elif beyond <= OUTLIER_SHARE:
        advice = Advice.NONE
    elif name == "gripper":
        advice = Advice.GRIPPER  # open or closed: no bound below the whole range changes anything
    elif scale < wanted <= WIDEST_SCALE:
        advice = Advice.WIDEN
    else:
        advice = Advice.PERSON
    return DimensionReach(name=name, scale=scale, ticks=ticks, beyond=beyond, wanted=wanted, advice=advice)

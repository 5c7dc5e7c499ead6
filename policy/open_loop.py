"""Open-loop error of actions against an operator's, in units of each dimension's spread, and what it must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.bridge_data import ActionStatistics

Array = NDArray[np.float64]

BASELINES = ("mean", "still", "hold_gripper")


@dataclass(frozen=True, kw_only=True)
class OpenLoopError:
    """Mean absolute error over steps, each dimension divided by its spread in the training episodes.

    Attributes:
        dims: one figure per dimension, shape (7,).
        motion: mean of the six motion dimensions.
        gripper: that of the gripper.
    """

    dims: Array
    motion: float
    gripper: float

    def summary(self) -> dict[str, float]:
        """Return motion and gripper for a JSON document."""
        return {"motion": self.motion, "gripper": self.gripper}


def open_loop_error(actions: Array, operator: Array, statistics: ActionStatistics) -> OpenLoopError:
    """Compare actions (N, 7) with the operator's (N, 7), both SI with the gripper as opening 0 to 1."""
    dims = np.abs(actions - operator).mean(axis=0) / statistics.spread
    return OpenLoopError(dims=dims, motion=float(dims[:6].mean()), gripper=float(dims[6]))


def baseline_actions(opening: Array, statistics: ActionStatistics) -> dict[str, Array]:
    """Return what each baseline does, (N, 7), at steps with the measured gripper opening (N,).

    `mean` does the training episodes' mean action; `still` does not move and gives the gripper their mean;
    `hold_gripper` does not move either and keeps the gripper as it is.
    """
    mean = np.tile(statistics.mean, (len(opening), 1))
    still = mean * np.array([0.0] * 6 + [1.0])
    hold = still.copy()
    hold[:, 6] = opening
    return {"mean": mean, "still": still, "hold_gripper": hold}

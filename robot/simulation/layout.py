"""Where the block and the pad lie, drawn from a seed."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np


class Split(enum.Enum):
    """Disjoint families of layouts; each draws from its own random stream."""

    TRAINING = 1  # demonstrations and online episodes
    HELD_OUT = 2  # measurements only
    SELECTION = 3  # choosing checkpoints and settings


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One arrangement of the table, base frame.

    Attributes:
        block_xy_m: centre of the block [m].
        block_yaw_rad: its rotation about z [rad].
        pad_xy_m: centre of the pad [m].
    """

    block_xy_m: tuple[float, float]
    block_yaw_rad: float
    pad_xy_m: tuple[float, float]


def draw_layout(split: Split, seed: int, index: int) -> Layout:
    """Return layout `index` of `seed`: block and pad on opposite sides of the table's middle, either way round."""
    rng = np.random.default_rng([split.value, seed, index])
    x = rng.uniform(0.34, 0.58, 2)
    side = rng.choice([-1.0, 1.0])
    block_y, pad_y = -side * rng.uniform(0.06, 0.24), side * rng.uniform(0.06, 0.24)
    return Layout(
        block_xy_m=(float(x[0]), float(block_y)),
        block_yaw_rad=float(rng.uniform(-0.15, 0.15)),
        pad_xy_m=(float(x[1]), float(pad_y)),
    )

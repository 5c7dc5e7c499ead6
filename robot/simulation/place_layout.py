"""Where the block and the pad lie, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot.simulation.layout import Arrangement, Split
from robot.simulation.place_scene import BLOCK_HALF_M


@dataclass(frozen=True, kw_only=True)
class PlaceLayout:
    """One arrangement of the table, base frame.

    Attributes:
        block_xy_m: centre of the block [m].
        block_yaw_rad: its rotation about z [rad].
        pad_xy_m: centre of the pad [m].
    """

    block_xy_m: tuple[float, float]
    block_yaw_rad: float
    pad_xy_m: tuple[float, float]

    @property
    def arrangement(self) -> Arrangement:
        """Block on the table, pad under nothing."""
        half_rad = self.block_yaw_rad / 2
        return Arrangement(
            object_m=(*self.block_xy_m, BLOCK_HALF_M),
            object_quat_wxyz=(float(np.cos(half_rad)), 0.0, 0.0, float(np.sin(half_rad))),
            target_xy_m=self.pad_xy_m,
        )


def draw_place_layout(split: Split, seed: int, index: int) -> PlaceLayout:
    """Return layout `index` of `seed`: block and pad on opposite sides of the table's middle, either way round."""
    rng = np.random.default_rng([split.value, seed, index])
    x = rng.uniform(0.34, 0.58, 2)
    side = rng.choice([-1.0, 1.0])
    block_y, pad_y = -side * rng.uniform(0.06, 0.24), side * rng.uniform(0.06, 0.24)
    return PlaceLayout(
        block_xy_m=(float(x[0]), float(block_y)),
        block_yaw_rad=float(rng.uniform(-0.15, 0.15)),
        pad_xy_m=(float(x[1]), float(pad_y)),
    )

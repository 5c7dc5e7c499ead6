"""Where the socket stands and how the peg sits in the hand, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot.simulation.insert_scene import GRIP_ABOVE_CENTRE_M, PEG_HALF_M
from robot.simulation.layout import Arrangement, Split

_TASK = 2  # beside the split: the layouts are not those of the place task


@dataclass(frozen=True, kw_only=True)
class InsertLayout:
    """One arrangement.

    Attributes:
        socket_xy_m: centre of the socket, base frame [m].
        slip_m: how far the peg sits from where the hand should hold it, along the hand's x axis (in the fingers' plane)
            and its z axis (downwards) [m]; across the fingers it is centred by their closing.
    """

    socket_xy_m: tuple[float, float]
    slip_m: tuple[float, float]

    @property
    def arrangement(self) -> Arrangement:
        """Socket on the table, peg upright in the closed hand, whose z axis points down."""
        along, down = self.slip_m
        return Arrangement(
            object_m=(along, 0.0, GRIP_ABOVE_CENTRE_M + down),
            object_quat_wxyz=(0.0, 1.0, 0.0, 0.0),
            grip_m=2.0 * PEG_HALF_M,
            target_xy_m=self.socket_xy_m,
        )


def draw_insert_layout(split: Split, seed: int, index: int) -> InsertLayout:
    """Return layout `index` of `seed`."""
    rng = np.random.default_rng([split.value, seed, index, _TASK])
    return InsertLayout(
        socket_xy_m=(float(rng.uniform(0.37, 0.55)), float(rng.uniform(-0.16, 0.16))),
        slip_m=(float(rng.uniform(-0.005, 0.005)), float(rng.uniform(-0.005, 0.005))),
    )

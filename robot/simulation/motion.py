"""What a scripted expert wants done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One tick of motion.

    Attributes:
        delta_m: translation of the TCP in the base frame, shape (3,) [m].
        gripper: +1 open, -1 closed.
    """

    delta_m: np.ndarray
    gripper: float

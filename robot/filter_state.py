"""What the safety filter remembers from tick to tick."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robot.command import Reason

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FilterState:
    """State of the safety filter; with the arm's state and the command it determines the next step to the bit.

    Attributes:
        T_base_tcp: pose commanded last, shape (4, 4) [m]; deltas add to it.
        q_rad: joints commanded last, shape (N,) [rad]; empty without kinematics.
        velocity: commanded velocity of the TCP in the base frame, linear then angular, shape (6,) [m/s, rad/s].
        gripper_width_m: width commanded last [m].
        due_s: when the last target was due [s]; braking goes on from there.
        rejections: commands rejected in a row.
        latched: True until the person arms: at the start, after a stop and after a fault.
        reasons: of the last tick; while latched, why it latched.
    """

    T_base_tcp: Array
    q_rad: Array
    velocity: Array
    gripper_width_m: float
    due_s: float
    rejections: int
    latched: bool
    reasons: Reason

    def __post_init__(self) -> None:
        for array in (self.T_base_tcp, self.q_rad, self.velocity):
            array.setflags(write=False)

    @property
    def at_rest(self) -> bool:
        """True when the commanded pose does not move."""
        return not self.velocity.any()

    def to_json(self) -> str:
        """Return JSON that `from_json` turns into the same bits (floats are written in full)."""
        return json.dumps(
            {
                "T_base_tcp": self.T_base_tcp.tolist(),
                "q_rad": self.q_rad.tolist(),
                "velocity": self.velocity.tolist(),
                "gripper_width_m": float(self.gripper_width_m),
                "due_s": float(self.due_s),
                "rejections": self.rejections,
                "latched": self.latched,
                "reasons": int(self.reasons),
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the state that `to_json` wrote. Raises ValueError, KeyError or TypeError on any other text."""
        fields = json.loads(text)
        return cls(
            T_base_tcp=np.array(fields["T_base_tcp"], np.float64).reshape(4, 4),
            q_rad=np.array(fields["q_rad"], np.float64).reshape(-1),
            velocity=np.array(fields["velocity"], np.float64).reshape(6),
            gripper_width_m=float(fields["gripper_width_m"]),
            due_s=float(fields["due_s"]),
            rejections=int(fields["rejections"]),
            latched=bool(fields["latched"]),
            reasons=Reason(fields["reasons"]),
        )

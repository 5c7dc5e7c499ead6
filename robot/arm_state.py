"""What an arm says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ArmState:
    """State of one arm at one instant, all float64 so that a replay is exact.

    Attributes:
        measured_s: when the state was measured, host monotonic clock [s].
        q_rad: joint positions, shape (N,) [rad]; N may be 0 for an arm known only by its TCP pose.
        dq_rad_s: joint velocities, shape (N,) [rad/s].
        T_base_tcp: pose of the tool centre point in the base frame, shape (4, 4) [m].
        tcp_velocity: linear then angular velocity of the TCP in the base frame, shape (6,) [m/s, rad/s].
        gripper_width_m: distance between the fingers [m].
        force_n: magnitude of the external force at the TCP [N]; None where the arm cannot tell.
        fault: what the arm refuses to move for, or None.
        wrench: external force and torque on the arm at the TCP in the base frame, as it estimates them (a table pushes
            it towards positive z), shape (6,) [N, Nm]; None where the arm cannot tell.
        readings: what the arm measures besides, by name, each (K,); the policy may take them as proprioception.
    """

    measured_s: float
    q_rad: Array
    dq_rad_s: Array
    T_base_tcp: Array
    tcp_velocity: Array
    gripper_width_m: float
    force_n: float | None = None
    fault: str | None = None
    wrench: Array | None = None
    readings: Mapping[str, Array] = field(default_factory=dict)

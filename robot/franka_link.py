"""What the servo needs of a Franka: the interface that its one vendor-dependent file fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot.joint_stream import Joints

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrankaSample:
    """One state of the arm.

    Attributes:
        robot_s: its time on the arm's own clock [s].
        q_rad: measured joints, shape (7,) [rad].
        dq_rad_s: their velocities, shape (7,) [rad/s].
        T_base_tcp: measured pose of the TCP, shape (4, 4) [m].
        wrench: estimated external force and torque on the arm at the TCP in the base frame, shape (6,) [N, Nm]; None
            where it has no estimate.
        mode: name of libfranka's robot mode.
        errors: names of the controller's errors, in reflex mode.
        tracks: True while the impedance controller runs.
    """

    robot_s: float
    q_rad: Array
    dq_rad_s: Array
    T_base_tcp: Array
    wrench: Array | None
    mode: str
    errors: tuple[str, ...]
    tracks: bool


class HandLink(Protocol):
    """An open gripper. Each call may take as long as the fingers move, and raises HardwareError when it fails."""

    def width_m(self) -> float:
        """Wait for the next state and return the width [m]."""
        ...

    def move(self, width_m: float) -> None:
        """Go to a width."""
        ...

    def grasp(self, width_m: float) -> None:
        """Close to a width or on whatever is in between, and hold it."""
        ...


class FrankaLink(Protocol):
    """An open arm. All calls come from one thread, but `follow`; they raise HardwareError when the arm fails."""

    @property
    def hand(self) -> HandLink:
        """Its gripper."""
        ...

    def read(self) -> FrankaSample:
        """Return the newest state; waits for it while the arm is not tracking, up to a second when it is gone."""
        ...

    def start(self) -> None:
        """Begin to track, from where the arm stands."""
        ...

    def follow(self, q_rad: Joints, dq_rad_s: Joints) -> None:
        """Give the tracker its next set-point [rad, rad/s]; from any thread, never blocks."""
        ...

    def ended(self) -> str:
        """Return why tracking ended, in the vendor's words."""
        ...

    def recover(self) -> None:
        """Have the arm clear its errors, which may take seconds. For the person's arm verb only."""
        ...

    def close(self) -> None:
        """Bring the arm to rest and let go of it; raises nothing."""
        ...

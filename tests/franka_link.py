"""A Franka without a network, for what the stream makes of what the arm says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot.errors import HardwareError
from robot.fr3 import HOME_Q_RAD, FR3Kinematics
from robot.franka_link import FrankaSample
from robot.joint_stream import Joints


class FakeHand:
    """Goes where it is told at once."""

    def __init__(self) -> None:
        self.width, self.done = 0.04, list[tuple[str, float]]()
        self.fails: str | None = None

    def width_m(self) -> float:
        return self.width

    def move(self, width_m: float) -> None:
        self._go("move", width_m)

    def grasp(self, width_m: float) -> None:
        self._go("grasp", width_m)

    def _go(self, how: str, width_m: float) -> None:
        self.done.append((how, width_m))
        if self.fails is not None:
            raise HardwareError(self.fails)
        self.width = width_m


class FakeLink:
    """Says what a test tells it, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.hand = FakeHand()
        self.sample = FrankaSample(
            robot_s=0.0,
            q_rad=np.array(HOME_Q_RAD),
            dq_rad_s=np.zeros(7),
            T_base_tcp=FR3Kinematics().forward(np.array(HOME_Q_RAD)),
            wrench=np.zeros(6),
            mode="Idle",
            errors=(),
            tracks=False,
        )
        self.asked: list[str] = []
        self.followed: list[Joints] = []
        self.velocity: Joints = ()  # of the last set-point
        self.moves = False  # or it stays where it is
        self.lost = self.stuck = False

    def read(self) -> FrankaSample:
        if self.lost:
            raise HardwareError("franka fake: connection lost (timeout)")
        self.sample = replace(self.sample, robot_s=self.sample.robot_s + 0.001)
        return self.sample

    def start(self) -> None:
        self.asked.append("start")
        self.sample = replace(self.sample, mode="Move", tracks=True)

    def follow(self, q_rad: Joints, dq_rad_s: Joints) -> None:
        self.followed.append(q_rad)
        self.velocity = dq_rad_s
        if self.moves:
            self.sample = replace(self.sample, q_rad=np.array(q_rad), dq_rad_s=np.array(dq_rad_s))

    def ended(self) -> str:
        return "motion aborted"

    def recover(self) -> None:
        self.asked.append("recover")
        if self.stuck:
            raise HardwareError("franka fake: does not recover (manual recovery required)")
        self.sample = replace(self.sample, mode="Idle", errors=())

    def close(self) -> None:
        self.asked.append("close")

    def show(self, mode: str, *errors: str) -> None:
        """Go into a mode, which ends tracking."""
        self.sample = replace(self.sample, mode=mode, errors=errors, tracks=False)

"""franky-sim's server of an arm, with two things that an arm has and it has not: it feels, and time waits for torques.

Imports franky-sim, so it is imported only where a simulator runs.
"""

from __future__ import annotations

import time
from typing import Any

import mujoco
import numpy as np
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.mujoco_simulator import MujocoSimulator
from numpy.typing import NDArray

__all__ = ["FrankaArmServer", "MujocoSimulator"]

# An arm gives its controller a millisecond and stops by itself when too many answers are missing. A program among
# others is late by more than that, and torques that are 40 ms old make a stiff joint swing (measured): so the arm's
# time stands still meanwhile. Who is silent for longer is gone.
_PATIENCE_S = 0.2
_LOOK_S = 2e-4
_FEELS_EVERY = 4  # states; it takes a fifth of a step
# Condition of J J^T beyond which no wrench can be told from joint torques; libfranka's is zero there, too.
_SINGULAR = 4e3
_NOTHING = (0.0,) * 6


class FrankaArmServer(FrankaRobotServer):  # type: ignore[misc]
    """Serves the first robot of a simulator that stands in the origin.

    Its `O_F_ext_hat_K` is made as an arm makes its own, from the torques about the joints that its model does not
    expect: those of contacts, of the joints' friction (some newtons, as with an arm) and of their ends.

    Args:
        robot: what `MujocoSimulator.add_robot` gave.
        address: where it listens.
    """

    def __init__(self, robot: Any, address: str) -> None:
        self._sent, self._answered, self._answered_s = 0, -1, -_PATIENCE_S
        super().__init__(robot, [address])
        self._names = [f"robot0_fr3_joint{number}" for number in range(1, 8)]
        self._dofs: list[int] = []
        self._hand = -1
        self._states = 0
        self._felt: tuple[float, ...] = _NOTHING

    def _reset_state(self) -> None:
        self._sent, self._answered = 0, -1
        super()._reset_state()

    def send_state(self) -> None:
        """Send the state to the client, if there is one."""
        self._sent += bool(self.udp_connected)
        super().send_state()

    def _handle_udp_command(self, command_data: bytes) -> None:
        super()._handle_udp_command(command_data)
        self._answered, self._answered_s = int.from_bytes(command_data[:8], "little"), time.monotonic()

    def _process_udp_commands(self) -> bool:
        there = bool(super()._process_udp_commands())
        while self._owed:
            time.sleep(_LOOK_S)
            super()._process_udp_commands()
        return there

    @property
    def _owed(self) -> bool:
        """Whether the client controls the arm and has yet to answer the newest state."""
        return (
            self.current_motion_id != 0
            and self._answered < self._sent - 1
            and time.monotonic() - self._answered_s < _PATIENCE_S
        )

    @property
    def robot_state(self) -> Any:
        """The state, with what the arm feels."""
        state = super().robot_state
        if self._states % _FEELS_EVERY == 0:
            self._felt = self._wrench(state.O_T_EE)
        self._states += 1
        return state.replace(O_F_ext_hat_K=self._felt)

    def _wrench(self, pose: tuple[float, ...]) -> tuple[float, ...]:
        """Return force and torque at the TCP in the base frame, those of the arm on what it touches [N, Nm]."""
        model, data = self.robot.model, self.robot.data
        if data is None:
            return _NOTHING
        if not self._dofs:
            self._dofs = [int(model.joint(name).dofadr[0]) for name in self._names]
            self._hand = int(model.jnt_bodyid[model.joint(self._names[-1]).id])
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], np.array(pose[12:15]), self._hand)
        J: NDArray[np.float64] = jacobian[:, self._dofs]
        least, *_, most = np.linalg.eigvalsh(J @ J.T)
        if most > _SINGULAR * least:
            return _NOTHING
        # the least-squares solution of J^T F = tau
        wrench = np.linalg.solve(J @ J.T, J @ -data.qfrc_constraint[self._dofs])
        return tuple(wrench.tolist())

"""A Franka Research 3 through franky-control: the one file that knows the vendor's library.

franky runs libfranka's control at 1 kHz in a thread of its own: torques of a joint impedance controller that draws the
arm to the newest set-point. Joint, not Cartesian, impedance: the safety filter judged a joint solution of each TCP
target, and the elbow is to go where it judged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from robot.errors import BadInputError, HardwareError
from robot.franka_config import FrankaArmConfig, FrankaHandConfig
from robot.franka_faults import quoted
from robot.franka_link import Array, FrankaSample, HandLink
from robot.geometry import inverse_pose
from robot.joint_stream import Joints

_STARTS_S = 1.0  # the longest until the controller has taken over
_LOOK_S = 0.002
_LINE = 160  # letters of the vendor's own words in a line on standard error
_ANY_WIDTH_M = 0.1  # more than the hand opens: whatever the fingers close on counts as held


def connect_franka(config: FrankaArmConfig) -> FrankyLink:
    """Connect to the arm and its hand, and set what the station says; takes as long as the network lets it.

    Raises:
        BadInputError: that cannot be done; one line with the cure.
    """
    where = f"franka {config.address}"
    try:
        import franky
    except ImportError as error:
        raise BadInputError(
            f"{where}: franky-control is not installed ({quoted(str(error))}); "
            'run `.venv/bin/python -m pip install -c constraints.txt -e ".[franka]"`'
        ) from None
    kernel = franky.RealtimeConfig.Enforce if config.realtime_kernel else franky.RealtimeConfig.Ignore
    try:
        robot = franky.Robot(config.address, realtime_config=kernel)
        gripper = franky.Gripper(config.address)
    except franky.IncompatibleVersionException as error:
        raise BadInputError(
            f"{where}: {quoted(str(error), _LINE)}; install the franky-control that "
            "fits its firmware, see docs/hardware.md"
        ) from None
    except franky.RealtimeException as error:
        raise BadInputError(
            f"{where}: {quoted(str(error), _LINE)}; boot a PREEMPT_RT kernel, see docs/hardware.md "
            "(arm.realtime_kernel = false is for a simulator only)"
        ) from None
    except franky.NetworkException as error:
        cure = "correct arm.address, or look at cable and network"
        if "refused" in str(error):
            cure = "switch the arm on, unlock its brakes and activate FCI in Desk, or correct arm.address"
        raise BadInputError(f"{where}: {quoted(str(error), _LINE)}; {cure}") from None
    except Exception as error:  # whatever else it raises, RuntimeError included
        raise BadInputError(f"{where}: {quoted(str(error), _LINE)}; look at Desk, cable and network") from error
    link = FrankyLink(config, franky, robot, gripper)
    try:
        link.set_up()
    except HardwareError as error:
        raise BadInputError(f"{error}; look at Desk") from None
    return link


class FrankyHand:
    """The Franka Hand."""

    def __init__(self, config: FrankaHandConfig, where: str, gripper: Any) -> None:
        self._config, self._where, self._gripper = config, where, gripper

    def width_m(self) -> float:
        """Wait for the next state and return the width [m]."""
        with _said(self._where, "hand"):
            return float(self._gripper.width)

    def move(self, width_m: float) -> None:
        """Go to a width; one that the fingers cannot reach is left where they are."""
        with _said(self._where, "hand does not move"):
            self._gripper.move(width_m, self._config.speed_m_s)

    def grasp(self, width_m: float) -> None:
        """Close to a width or on whatever is in between, and hold it."""
        with _said(self._where, "hand does not close"):
            self._gripper.grasp(width_m, self._config.speed_m_s, self._config.force_n, _ANY_WIDTH_M, _ANY_WIDTH_M)


class FrankyLink:
    """An arm that is connected.

    Args:
        config: of the station.
        franky: the module.
        robot: its `Robot`.
        gripper: its `Gripper`.
    """

    def __init__(self, config: FrankaArmConfig, franky: Any, robot: Any, gripper: Any) -> None:
        self._config, self._franky, self._robot = config, franky, robot
        self._where = f"franka {config.address}"
        self._hand = FrankyHand(config.hand, self._where, gripper)
        self._tracker: Any = None
        self._error_names = [name for name in dir(franky.Errors) if isinstance(getattr(franky.Errors, name), property)]

    @property
    def hand(self) -> HandLink:
        """Its gripper."""
        return self._hand

    def set_up(self) -> None:
        """Set thresholds of collision, load and tool. Raises HardwareError when the arm refuses."""
        config, robot = self._config, self._robot
        torque, force = config.collision.joint_torque_nm, config.collision.tcp_force_n + config.collision.tcp_torque_nm
        with _said(self._where, "refuses collision, load or tool of the station"):
            robot.set_collision_behavior(torque, torque, force, force)
            load = config.load
            if load is not None:
                robot.set_load(load.mass_kg, load.centre_m, np.diag(load.inertia_kg_m2).ravel(order="F"))
            T_flange_nominal = robot.state.F_T_NE.matrix
            robot.set_ee((inverse_pose(T_flange_nominal) @ config.tool.T_flange_tcp).ravel(order="F"))
            if not np.allclose(robot.state.EE_T_K.matrix, np.eye(4)):  # another program has set it
                robot.set_k(np.eye(4).ravel(order="F"))  # wrenches are those at the TCP

    def read(self) -> FrankaSample:
        """Return the newest state; waits for it while the arm is not tracking, up to a second when it is gone."""
        with _said(self._where, "connection lost"):
            state = self._robot.state
            tracks = bool(self._robot.is_in_control)
        mode = state.robot_mode.name
        return FrankaSample(
            robot_s=state.time.to_sec(),
            q_rad=state.q,
            dq_rad_s=state.dq,
            T_base_tcp=state.O_T_EE.matrix,
            wrench=_external(state.O_F_ext_hat_K),
            mode=mode,
            errors=self._errors(state) if mode == "Reflex" else (),
            tracks=tracks,
        )

    def start(self) -> None:
        """Begin to track, from where the arm stands. Raises HardwareError when the arm does not."""
        with _said(self._where, "does not start"):
            with suppress(self._franky.ControlException):
                self._robot.join_motion(0.0)  # what ended the last motion was told then
            self._tracker = self._franky.JointImpedanceTracker(
                self._robot, stiffness=np.array(self._config.stiffness_nm_rad)
            )
            until_s = time.monotonic() + _STARTS_S
            while not self._robot.is_in_control or self._robot.state.robot_mode.name != "Move":
                if time.monotonic() > until_s:
                    self._robot.join_motion(0.0)
                    raise TimeoutError(f"not in control after {_STARTS_S:g} s")
                time.sleep(_LOOK_S)

    def follow(self, q_rad: Joints, dq_rad_s: Joints) -> None:
        """Give the tracker its next set-point [rad, rad/s]. Raises HardwareError when it takes none."""
        with _said(self._where, "takes no set-point"):
            self._tracker.set_target(q_rad, dq_rad_s)

    def ended(self) -> str:
        """Return why tracking ended, in the vendor's words."""
        try:
            self._robot.join_motion(0.0)
        except Exception as error:
            return quoted(str(error))
        return "it does not say why"

    def recover(self) -> None:
        """Have the arm clear its errors. For the person's arm verb only. Raises HardwareError when it cannot."""
        with _said(self._where, "does not recover"):
            self._robot.recover_from_errors()

    def close(self) -> None:
        """Bring the arm to rest and let go of it."""
        with suppress(Exception):  # whatever it says now, nobody can heed it
            if self._tracker is not None and self._robot.is_in_control:
                self._tracker.stop()

    def _errors(self, state: Any) -> tuple[str, ...]:
        for errors in (state.current_errors, state.last_motion_errors):
            names = tuple(name for name in self._error_names if getattr(errors, name))
            if names:
                return names
        return ()


def _external(wrench: Array) -> Array | None:
    """Return the wrench on the arm for libfranka's, None where that has none.

    libfranka counts what the arm does to its surroundings as positive, and gives six zeros near a singularity
    (`RobotState::O_F_ext_hat_K` in its `robot_state.h`).
    """
    return 0.0 - wrench if wrench.any() else None


@contextmanager
def _said(where: str, what: str) -> Iterator[None]:
    """Turn whatever the library raises, RuntimeError included, into a HardwareError of one line."""
    try:
        yield
    except Exception as error:
        raise HardwareError(f"{where}: {what} ({quoted(str(error))})") from error

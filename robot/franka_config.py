"""The arm section of a station with a Franka Research 3 and its hand."""

from __future__ import annotations

import ipaddress
import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robot import fr3
from robot.geometry import pose, rotvec_to_matrix
from robot.servo_config import ServoConfig
from robot.simulation.task_config import TaskConfig
from robot.strict import Strict

Coordinate = Annotated[float, Field(ge=-5.0, le=5.0)]
Offset = Annotated[float, Field(ge=-0.5, le=0.5)]
Stiffness = Annotated[float, Field(ge=1.0, le=2000.0)]
Torque = Annotated[float, Field(gt=0.0, le=100.0)]
Force = Annotated[float, Field(gt=0.0, le=200.0)]
Seven = tuple[Stiffness, Stiffness, Stiffness, Stiffness, Stiffness, Stiffness, Stiffness]


class FrankaCollisionConfig(Strict):
    """What the arm's own controller takes for a collision, and then stops with a reflex; no defaults.

    Attributes:
        joint_torque_nm: external torque about each joint [Nm].
        tcp_force_n: external force at the TCP along x, y and z of the base [N].
        tcp_torque_nm: external torque at the TCP about them [Nm].
    """

    joint_torque_nm: tuple[Torque, Torque, Torque, Torque, Torque, Torque, Torque]
    tcp_force_n: tuple[Force, Force, Force]
    tcp_torque_nm: tuple[Torque, Torque, Torque]


class FrankaLoadConfig(Strict):
    """What the arm carries beyond the end effector that Desk knows.

    Attributes:
        mass_kg: its mass [kg].
        centre_m: its centre of mass in the flange's frame [m].
        inertia_kg_m2: its moments of inertia about x, y and z of that frame, through the centre of mass [kg m^2].
    """

    mass_kg: Annotated[float, Field(ge=0.0, le=3.0)]
    centre_m: tuple[Offset, Offset, Offset]
    inertia_kg_m2: tuple[
        Annotated[float, Field(ge=0.0, le=1.0)],
        Annotated[float, Field(ge=0.0, le=1.0)],
        Annotated[float, Field(ge=0.0, le=1.0)],
    ]


class FrankaToolConfig(Strict):
    """Where the TCP is in the flange's frame; the Franka Hand's finger tips where left out.

    Attributes:
        position_m: its position [m].
        rotation_vector_deg: its orientation, as an axis times an angle [degrees].
    """

    position_m: tuple[Offset, Offset, Offset] = (0.0, 0.0, fr3.TCP_M)
    rotation_vector_deg: tuple[float, float, float] = (0.0, 0.0, math.degrees(fr3.HAND_YAW_RAD))

    @property
    def T_flange_tcp(self) -> NDArray[np.float64]:
        """Pose of the TCP in the flange's frame, (4, 4) [m]."""
        return pose(rotvec_to_matrix(np.radians(self.rotation_vector_deg)), np.array(self.position_m))


class FrankaHandConfig(Strict):
    """How the Franka Hand moves.

    Attributes:
        speed_m_s: of the fingers towards or from each other [m/s].
        force_n: with which they hold what they close on; 70 N is what its data sheet allows for ever [N].
    """

    speed_m_s: Annotated[float, Field(gt=0.0, le=0.2)] = 0.1
    force_n: Annotated[float, Field(ge=1.0, le=70.0)] = 30.0


class FrankaSimulatorConfig(Strict):
    """franky-sim at `arm.address` in place of an arm, with a simulated table in front of it.

    The table's own arm goes where the Franka is measured, so that simulated cameras, tasks and operators serve. What
    stands in for a person may arm it, so it must be on this machine: no arm answers at a loopback address.

    Attributes:
        task: what is on the table.
        start: the run starts it; `false` for one that runs already.
    """

    task: TaskConfig
    start: bool = True


class FrankaArmConfig(Strict):
    """A Franka Research 3 through its FCI; real time only.

    Attributes:
        address: of its controller.
        home_m: where each episode begins: position of the TCP in the base frame, hand straight down [m].
        servo: how it is led.
        collision: when the arm stops by itself.
        stiffness_nm_rad: with which joints are drawn to their set-points; critically damped [Nm/rad]. What is left out
            is that of libfranka's example of joint impedance control.
        load: what it carries beyond its end effector.
        tool: where its TCP is.
        hand: how its gripper moves.
        realtime_kernel: `false` lets the 1 kHz loop run on a kernel without PREEMPT_RT, for a simulator only.
        simulator: there is one in place of the arm; leave it out for an arm.
    """

    kind: Literal["franka"]
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$")]
    home_m: tuple[Coordinate, Coordinate, Coordinate]
    servo: ServoConfig
    collision: FrankaCollisionConfig
    stiffness_nm_rad: Seven = (600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0)
    load: FrankaLoadConfig | None = None
    tool: FrankaToolConfig = FrankaToolConfig()
    hand: FrankaHandConfig = FrankaHandConfig()
    realtime_kernel: bool = True
    simulator: FrankaSimulatorConfig | None = None

    @model_validator(mode="after")
    def _simulator_is_here(self) -> Self:
        if self.simulator is not None and not _is_loopback(self.address):
            raise ValueError(
                f"address is {self.address!r} beside arm.simulator, which is on this machine (allowed 127.0.0.0/8, "
                "localhost); for an arm remove simulator and realtime_kernel"
            )
        return self


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False

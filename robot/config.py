"""The arm section of a station file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robot.environment.config import GymnasiumArmConfig
from robot.franka_config import FrankaArmConfig
from robot.servo_config import ServoConfig
from robot.simulation.task_config import TaskConfig
from robot.strict import Strict

Coordinate = Annotated[float, Field(ge=-5.0, le=5.0)]


class SimulatedArmConfig(Strict):
    """The FR3-like arm of a simulated station and its task.

    Attributes:
        home_m: where each episode begins: position of the TCP in the base frame, hand straight down [m].
        task: what is on the table.
        servo: how it is led in real time; in lock-step the world goes along with the loop and needs none.
    """

    kind: Literal["simulated"]
    home_m: tuple[Coordinate, Coordinate, Coordinate]
    task: TaskConfig
    servo: ServoConfig | None = None


class RecordedArmConfig(Strict):
    """An arm that plays a recording; its commands are logged but move nothing.

    Attributes:
        gripper_open_m: opening where the recording says 1 [m].
        gripper_closed_m: opening where the recording says 0 [m].
    """

    kind: Literal["recorded"]
    gripper_open_m: Annotated[float, Field(gt=0.0, le=0.5)]
    gripper_closed_m: Annotated[float, Field(ge=0.0, le=0.5)]


ArmConfig = Annotated[
    SimulatedArmConfig | RecordedArmConfig | FrankaArmConfig | GymnasiumArmConfig, Field(discriminator="kind")
]

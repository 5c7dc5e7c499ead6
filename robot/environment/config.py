"""A Gymnasium environment as an arm, as a person writes it in a station file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from robot.strict import Strict

# A key of the environment's observation, whole or some of its numbers: `observation[0:3]`, `desired_goal`,
# `observation[6]`. An observation that is one plain array goes by the name of `observation`.
Where = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\[[0-9]{1,6}(:[0-9]{1,6})?\])?$")]
ReadingName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Module = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?$")]
Unit = Annotated[float, Field(ge=-1.0, le=1.0)]
Dimension = Literal["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


class EnvironmentState(Strict):
    """Where the arm's state is in an observation.

    A place is a key of the observation, whole or some of its numbers: `observation[0:3]`, `desired_goal`,
    `observation[6]`. An observation that is one plain array goes by the name of `observation`.

    Attributes:
        tcp_position_m: place; may be left out only where the actions are no motion of the hand [m].
        tcp_quat_xyzw: place or, where the hand does not turn, its orientation itself (left out: straight down).
        tcp_velocity_m_s: place; left out, it is the difference of two poses [m/s].
        gripper_width_m: place [m].
        readings: places of more keys for the policy: what a state-only benchmark gives instead of cameras, in float64
            in the log.
    """

    tcp_position_m: Where | None = None
    tcp_quat_xyzw: Where | tuple[Unit, Unit, Unit, Unit] = (1.0, 0.0, 0.0, 0.0)
    tcp_velocity_m_s: Where | None = None
    gripper_width_m: Where | None = None
    readings: dict[ReadingName, Where] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _turned(self) -> Self:
        if not isinstance(self.tcp_quat_xyzw, str) and abs(sum(q * q for q in self.tcp_quat_xyzw) - 1.0) > 1e-3:
            raise ValueError(f"tcp_quat_xyzw {self.tcp_quat_xyzw} is no rotation: its length must be 1")
        return self


class TcpDeltaActions(Strict):
    """Actions that move the hand.

    Commands pass the whole safety filter; joints are not known to it.

    Attributes:
        dims: along which the numbers of an action are steps, each once.
        scale: what an action of 1 means for each: metres for x, y, z, radians about the base's axes for roll, pitch,
            yaw, metres of opening for the gripper, all counted from where the hand is measured.
    """

    kind: Literal["tcp_delta"]
    dims: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=7)]
    scale: tuple[Annotated[float, Field(gt=0.0, le=10.0)], ...]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.scale) != len(self.dims) or len(set(self.dims)) != len(self.dims):
            raise ValueError(f"dims {self.dims} and scale {self.scale}: each dimension once, with one scale")
        return self


class ActuationActions(Strict):
    """Actions that are no motion, such as torques: the filter bounds numbers, nobody knows where they lead.

    Each is a share of the environment's own range, -1 to 1. With `tcp_position_m` the workspace is watched: the filter
    latches once the hand has left it, no sooner.

    Attributes:
        max_change: greatest change of a number in a tick.
    """

    kind: Literal["actuation"]
    max_change: Annotated[float, Field(gt=0.0, le=2.0)]


class EnvironmentSuccess(Strict):
    """When the environment's episode is a success.

    Attributes:
        info: name of a flag in what a step tells.
        reward_at_least: threshold of a step's reward.
        terminated: what it means that the environment terminates without either.
    """

    info: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    reward_at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    terminated: Literal["failure", "success"] = "failure"


class GymnasiumArmConfig(Strict):
    """Any Gymnasium environment, stepped once a tick.

    Naming a package runs its code: as with any driver, only take stations from people you trust.

    Attributes:
        environment: its id.
        package: Python module that registers it; left out for Gymnasium's own.
        options: go to `gymnasium.make`.
        state: where the arm's state is in an observation.
        action: what its actions are.
        success: when its episode is a success.
        expert: which scripted expert knows the task, for a simulated operator; it needs the readings that
            docs/gymnasium.md names.
    """

    kind: Literal["gymnasium"]
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
    package: Module = ""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    state: EnvironmentState = EnvironmentState()
    action: Annotated[TcpDeltaActions | ActuationActions, Field(discriminator="kind")]
    success: EnvironmentSuccess = EnvironmentSuccess()
    expert: Literal["none", "push"] = "none"

    @model_validator(mode="after")
    def _hand_known(self) -> Self:
        if isinstance(self.action, TcpDeltaActions):
            if self.state.tcp_position_m is None:
                raise ValueError("state.tcp_position_m is missing, which actions of kind 'tcp_delta' are counted from")
            if "gripper" in self.action.dims and self.state.gripper_width_m is None:
                raise ValueError("state.gripper_width_m is missing, which the action's gripper is counted from")
        return self

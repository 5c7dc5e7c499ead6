"""A Gymnasium environment as the parts of a rig: arm, view, judge, and how its episodes begin."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from perception.camera import Camera
from perception.config import EnvironmentCameraConfig
from perception.environment_camera import EnvironmentCamera
from policy.episode_header import Outcome
from robot.arm_state import ArmState
from robot.clock import Clock, VirtualClock
from robot.environment.config import EnvironmentSuccess, GymnasiumArmConfig, TcpDeltaActions
from robot.environment.environment import Environment
from robot.environment.environment_arm import EnvironmentArm
from robot.simulation.layout import Split
from robot.simulation.task import TaskStatus
from teleop.station import LoadedStation


@dataclass(frozen=True, kw_only=True)
class EnvironmentLayout:
    """How an episode of an environment begins.

    Attributes:
        reset_seed: for `reset(seed=...)`.
    """

    reset_seed: int


class EnvironmentTask:
    """The environment's own word on its task, for a judge and for a simulated person."""

    def __init__(self, environment: Environment, success: EnvironmentSuccess) -> None:
        self._environment, self._success = environment, success

    def reset(self) -> None:
        """Nothing is remembered."""

    def status(self, state: ArmState) -> TaskStatus:
        """Return whether the last step was a success, or ended the episode otherwise by the task's own rules."""
        environment, success = self._environment, self._success
        flagged = success.info is not None and bool(np.all(environment.info.get(success.info, False)))
        paid = success.reward_at_least is not None and environment.reward >= success.reward_at_least
        if flagged or paid or (environment.terminated and success.terminated == "success"):
            return TaskStatus.SUCCESS
        return TaskStatus.FAILURE if environment.terminated else TaskStatus.RUNNING


class EnvironmentJudge:
    """Says how an environment's episode ended: by success, by failure, or cut short by its own time limit.

    Args:
        says_success: False where somebody else judges; then only the environment's end counts, as a timeout.
    """

    def __init__(self, environment: Environment, task: EnvironmentTask, *, says_success: bool = True) -> None:
        self._environment, self._task, self._says_success = environment, task, says_success

    def silent(self) -> EnvironmentJudge:
        """Return a judge that only says that the environment goes on no more."""
        return EnvironmentJudge(self._environment, self._task, says_success=False)

    def reset(self) -> None:
        """Nothing is remembered."""

    def outcome(self, state: ArmState) -> Outcome | None:
        """Return the outcome once the environment said it; terminated and truncated are never the same."""
        if self._says_success:
            status = self._task.status(state)
            if status is not TaskStatus.RUNNING:
                return Outcome.SUCCESS if status is TaskStatus.SUCCESS else Outcome.FAILURE
        return Outcome.TIMEOUT if self._environment.done else None


@dataclass(frozen=True, kw_only=True)
class EnvironmentParts:
    """What only such a rig has."""

    config: GymnasiumArmConfig
    environment: Environment
    arm: EnvironmentArm
    cameras: list[Camera]
    task: EnvironmentTask
    judge: EnvironmentJudge

    @classmethod
    def open(
        cls, stack: ExitStack, loaded: LoadedStation, config: GymnasiumArmConfig, clock: Clock
    ) -> EnvironmentParts:
        """Make the environment, which `stack` closes. Raises BadInputError where the station does not fit it."""
        station = loaded.station
        views = [camera for camera in station.camera if isinstance(camera, EnvironmentCameraConfig)]
        environment = Environment(config, f"station {loaded.path}", rate_hz=station.loop.rate_hz, rendered=bool(views))
        stack.enter_context(environment)
        task = EnvironmentTask(environment, config.success)
        return cls(
            config=config,
            environment=environment,
            arm=EnvironmentArm(environment, config, clock, period_s=station.period_s),
            cameras=[EnvironmentCamera(view, environment, clock) for view in views],
            task=task,
            judge=EnvironmentJudge(environment, task),
        )

    @property
    def readings(self) -> dict[str, int]:
        """What the arm measures besides, name -> how many numbers."""
        return {name: len(self.environment.pick(place)) for name, place in self.config.state.readings.items()}

    def arm_state(self) -> ArmState:
        """Return the arm's state as it is now, for who stands beside it."""
        return self.arm.state()

    def draw_layout(self, split: Split, seed: int, index: int) -> EnvironmentLayout:
        """Return layout `index` of `seed`; families of layouts draw from their own streams."""
        drawn = np.random.SeedSequence([split.value, seed, index]).generate_state(1)[0]
        return EnvironmentLayout(reset_seed=int(drawn) & 0x7FFFFFFF)


@dataclass(frozen=True, kw_only=True)
class EnvironmentKeys:
    """What a policy for an environment takes and gives.

    Attributes:
        proprio: key -> how many numbers: where the hand is, and every reading.
        motion_dims: what its actions move; None where they are no motion.
        actuators: how many numbers its actions have.
    """

    proprio: dict[str, int]
    motion_dims: tuple[str, ...] | None
    actuators: int


def environment_keys(loaded: LoadedStation, config: GymnasiumArmConfig) -> EnvironmentKeys:
    """Open the environment to see what there is for a policy. Raises BadInputError where the station does not fit."""
    with ExitStack() as stack:
        parts = EnvironmentParts.open(stack, loaded, config, VirtualClock())
        state, motion = config.state, isinstance(config.action, TcpDeltaActions)
        proprio = {"tcp_position_m": 3} if state.tcp_position_m else {}
        proprio |= {"gripper_width_m": 1} if state.gripper_width_m else {}
        return EnvironmentKeys(
            proprio=proprio | parts.readings,
            motion_dims=config.action.dims if isinstance(config.action, TcpDeltaActions) else None,
            actuators=0 if motion else len(parts.environment.action_bounds[0]),
        )

"""A Gymnasium environment's arm: stepped once for each command, when that command's time is up."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from robot.environment.config import GymnasiumArmConfig, TcpDeltaActions
from robot.environment.environment import Environment
from robot.errors import BadInputError, HardwareError
from robot.geometry import quat_wxyz_to_matrix, twist_between

Array = NDArray[np.float64]
_TCP_DIMS = ("x", "y", "z", "roll", "pitch", "yaw")
_ROUNDING_S = 1e-9  # of times that were summed in another order than the clock's


class EnvironmentArm:
    """Time in the environment passes only when the loop says so: one step a tick, in lock-step and in real time.

    A safe command becomes the environment's action at the end of its tick; a hold is the last safe target once more, or
    no actuation. Where the loop came late or waits for the person, the environment stands still. Once its episode is
    over it is not stepped until `reset`.

    Args:
        environment: opened by the caller.
        config: of the station.
        clock: of the loop.
        period_s: length of a tick, which is a step of the environment [s].
    """

    open_loop = False

    def __init__(self, environment: Environment, config: GymnasiumArmConfig, clock: Clock, *, period_s: float) -> None:
        self.environment, self._config, self._clock, self._period_s = environment, config, clock, period_s
        self._fault: str | None = None
        self._target: SafeCommand | None = None
        self._due_s: float | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._target, self._due_s = None, None

    @property
    def joint_count(self) -> int:
        """Number of actuators where the actions are actuation; 0 for a hand that is known by its pose only."""
        return len(self.environment.action_bounds[0]) if self._driven else 0

    def reset(self, seed: int) -> None:
        """Begin a new episode. Raises HardwareError."""
        self.environment.reset(seed)
        self._begin()

    def state(self) -> ArmState:
        """Return the state as the environment stands; a step whose time is up is made first.

        Raises:
            HardwareError: the step failed, or gave what is not finite.
        """
        now_s = self._clock.now_s()
        if self._due_s is not None and now_s >= self._due_s - _ROUNDING_S:
            self._step()
        if self._due_s is None:
            self._measured_s = now_s
        return ArmState(
            measured_s=self._measured_s,
            q_rad=self._actuation,
            dq_rad_s=self._actuation_speed,
            T_base_tcp=self._T_base_tcp,
            tcp_velocity=self._tcp_velocity,
            gripper_width_m=self._width_m,
            fault=self._fault,
            readings=self._readings,
        )

    @property
    def step_reward(self) -> float:
        """The environment's own reward of the step that the last command or hold led to; NaN until it is made."""
        return self._step_reward

    def send(self, command: SafeCommand) -> None:
        """Step towards `command` when it is due. Raises TypeError for anything but a SafeCommand."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"an arm accepts a SafeCommand only, got {type(command).__name__}; use robot.safety.step")
        if self._fault is None:
            self._target, self._due_s = command, command.due_s
            self._step_reward = np.nan

    def hold(self) -> None:
        """Let one tick pass at the last safe target, or without actuation."""
        if self._driven:
            self._target = None
        self._due_s = self._clock.now_s() + self._period_s
        self._step_reward = np.nan

    def clear_fault(self) -> None:
        """Forget a fault; for the person's arm verb only."""
        self._fault = None

    def fail(self, fault: str) -> None:
        """Raise a fault as a real arm's reflex would: it stays where it is and refuses until cleared."""
        self._fault, self._target, self._due_s = fault, None, None

    @property
    def _driven(self) -> bool:
        return not isinstance(self._config.action, TcpDeltaActions)

    def _begin(self) -> None:
        """Read a new episode's first state; the arm is at rest in it."""
        self._low, self._high = self.environment.action_bounds
        self._greatest = np.maximum(np.abs(self._low), np.abs(self._high))  # so that a share of 0 is no actuation
        self._target, self._due_s = None, None
        self._measured_s = self._clock.now_s()
        self._step_reward = np.nan
        count = self.joint_count
        self._actuation, self._actuation_speed = np.zeros(count), np.zeros(count)
        self._T_base_tcp = np.eye(4)
        self._read(moved=False)

    def _step(self) -> None:
        self._due_s = None
        if self.environment.done or self._fault is not None:
            return
        actuation = np.zeros(self.joint_count) if self._target is None else self._target.q_rad
        action = self._greatest * actuation if self._driven else self._towards(self._target)
        try:
            self.environment.step(np.clip(action, self._low, self._high))
            self._read(moved=True)
        except (HardwareError, BadInputError) as error:  # the latter of a key that was there when it was opened
            self._fault, self._target = str(error), None
            raise HardwareError(self._fault) from None
        if self._driven:
            self._actuation_speed = (actuation - self._actuation) / self._period_s
            self._actuation = actuation
        self._step_reward = self.environment.reward

    def _towards(self, target: SafeCommand | None) -> Array:
        """Return the action (A,) from where the hand is measured to the target; none without a target."""
        config = self._config.action
        assert isinstance(config, TcpDeltaActions)
        action = np.zeros(len(config.dims))
        if target is None:
            return action
        way = dict(zip(_TCP_DIMS, twist_between(self._T_base_tcp.tolist(), target.T_base_tcp.tolist()), strict=True))
        way["gripper"] = target.gripper_width_m - self._width_m
        for i, (name, scale) in enumerate(zip(config.dims, config.scale, strict=True)):
            action[i] = way[name] / scale
        return action

    def _read(self, *, moved: bool) -> None:
        """Take the state from the observation; `moved` where it came from a step."""
        state, environment = self._config.state, self.environment
        before, after = self._T_base_tcp, np.eye(4)
        if state.tcp_position_m is not None:
            after[:3, 3] = environment.pick(state.tcp_position_m)
            quat = state.tcp_quat_xyzw
            x, y, z, w = environment.pick(quat) if isinstance(quat, str) else quat
            after[:3, :3] = quat_wxyz_to_matrix((w, x, y, z))
        velocity = np.zeros(6)
        if moved:
            velocity = np.array(twist_between(before.tolist(), after.tolist())) / self._period_s
        if state.tcp_velocity_m_s is not None:
            velocity[:3] = environment.pick(state.tcp_velocity_m_s)
        self._T_base_tcp, self._tcp_velocity = after, velocity
        self._width_m = 0.0 if state.gripper_width_m is None else float(environment.pick(state.gripper_width_m)[0])
        self._readings = {name: environment.pick(place) for name, place in state.readings.items()}
        for array in (after, velocity, *self._readings.values()):
            array.setflags(write=False)

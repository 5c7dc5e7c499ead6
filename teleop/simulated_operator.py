"""A person beside the simulated robot, for runs that nobody attends.

It sees the scene as a person would and nothing of the learner: no episode number, no residual, no weights. So
fewer interventions can only come from a better policy. It lets the policy go on until that is plainly going
wrong, needs time to react, sees and steers a little off, and hands back once the matter is put right.

One who drives through has a memory: where what they put right came undone soon after they handed back, they drive to
the end of the episode the next time, and then let the policy try again. Beside a policy that cannot go on from anywhere
yet, a person who always hands back would never see the task done, and neither would the learner.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from robot.arm_state import ArmState
from robot.simulation.insert_expert import InsertStyle
from robot.simulation.insert_task import InsertTask
from robot.simulation.place_expert import PlaceStyle
from robot.simulation.place_task import PlaceTask
from robot.simulation.task import SimulatedTask, TaskStatus
from teleop.human_input import HumanCommand, HumanEvent
from teleop.insert_sight import InsertSight
from teleop.place_sight import PlaceSight
from teleop.task_sight import SeenArm, TaskSight

_PROGRESS_M = 0.003


@dataclass(frozen=True, kw_only=True)
class OperatorTraits:
    """How this person is.

    Attributes:
        reaction_s: least and greatest time from seeing that it goes wrong to holding the drive button [s].
        sight_m: spread of the error in judging where things are, new at each takeover [m].
        hand: spread of the unsteadiness of the stick, share of full deflection.
        stall_s: how long they wait for a robot that comes no nearer to its goal [s].
        drives_through: whether they drive to the end of the episode after a handback of which nothing came.
        relapse_s: so soon after a handback, what goes wrong tells that nothing came of it [s].
    """

    reaction_s: tuple[float, float] = (0.3, 0.5)
    sight_m: float = 0.001
    hand: float = 0.015
    stall_s: float = 1.0
    drives_through: bool = False
    relapse_s: float = 1.5


class _Mood(enum.Enum):
    WATCHING = 1
    REACTING = 2
    DRIVING = 3


@dataclass(frozen=True)
class _Handback:
    at_s: float
    stage_before: int  # when they had taken over


class SimulatedOperator:
    """Human input that needs nobody. Arms the robot, corrects it and labels how each episode ended."""

    _stage_last: int
    _nearest_m: float
    _progress_s: float

    def __init__(
        self,
        world: SeenArm,
        task: SimulatedTask,
        *,
        scale_m: tuple[float, float, float],
        period_s: float,
        seed: int,
        traits: OperatorTraits | None = None,
        sight: TaskSight[Any] | None = None,
    ) -> None:
        """Args: `scale_m` is the TCP's step at full deflection [m]; `seed` makes this person's randomness.

        `sight` is their eye for the task; left out, that for a simulated one.
        """
        self._world, self._task = world, task
        self._sight = sight or _sight_of(task)
        self._scale_m, self._period_s = np.array(scale_m), period_s
        self._rng = np.random.default_rng([seed, 77])
        self._traits = traits or OperatorTraits()
        self._arms = True
        self._stands_back = True
        self._last_z_m: float | None = None
        self._mood = _Mood.WATCHING
        self._doubts = False  # the last handback came to nothing
        self._drives_on = False  # to the end of this episode
        self._handback: _Handback | None = None  # the last one, while it may still come to nothing
        self._calm()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def lay_table(self) -> None:
        """They have laid the table anew and watch."""
        self._stands_back = False
        self._drives_on, self._handback = False, None
        self._calm()

    def stand_back(self) -> None:
        """The episode is over: hands off while the robot goes home."""
        self._stands_back = True

    def arm(self) -> None:
        """Arm again at the next poll, as the window asks a person to."""
        self._arms = True

    def poll(self, now_s: float) -> HumanCommand:
        """Look at the scene and say what they do now."""
        if self._arms:
            self._arms = False
            return HumanCommand(events=HumanEvent.ARM, polled_s=now_s)
        if self._stands_back:
            return HumanCommand(polled_s=now_s)
        state = self._world.arm_state()
        truth = self._sight.look(state)
        label = {TaskStatus.SUCCESS: HumanEvent.SUCCESS, TaskStatus.FAILURE: HumanEvent.FAILURE}.get(
            self._task.status(state), HumanEvent.NONE
        )
        wrong = self._goes_wrong(truth, state, now_s)
        self._remember(truth, now_s, wrong=wrong or label is HumanEvent.FAILURE)
        if self._mood is _Mood.WATCHING and wrong:
            self._mood, self._takes_over_s = _Mood.REACTING, now_s + self._rng.uniform(*self._traits.reaction_s)
        if self._mood is _Mood.REACTING and now_s >= self._takes_over_s:
            self._mood = _Mood.DRIVING if wrong else _Mood.WATCHING
            self._stage_at_start = self._sight.stage(truth)
            self._off_m = self._rng.normal(0.0, self._traits.sight_m, 2)
            if self._mood is _Mood.DRIVING:
                self._drives_on, self._doubts = self._doubts, False
        settled = self._mood is _Mood.DRIVING and self._sight.settled(truth, state, self._stage_at_start)
        if settled and not self._drives_on:
            self._handback = _Handback(now_s, self._stage_at_start)
            self._calm()
        if self._mood is not _Mood.DRIVING:
            return HumanCommand(events=label, polled_s=now_s)
        return replace(self._drive(truth, state), events=label, polled_s=now_s)

    def _drive(self, truth: Any, state: ArmState) -> HumanCommand:
        """Steer as the expert would, towards where they believe things to be."""
        motion = self._sight.motion(truth, state, self._off_m)
        twist = np.zeros(6)
        twist[:3] = motion.delta_m / self._scale_m + self._rng.normal(0.0, self._traits.hand, 3)
        return HumanCommand(twist=np.clip(twist, -1.0, 1.0), gripper=motion.gripper, engaged=True)

    def _remember(self, truth: Any, now_s: float, *, wrong: bool) -> None:
        """Look what came of the last handback."""
        if self._handback is None or not self._traits.drives_through:
            return
        if now_s - self._handback.at_s > self._traits.relapse_s:
            self._handback = None
        elif wrong or self._sight.stage(truth) == self._handback.stage_before:
            self._handback, self._doubts = None, True

    def _goes_wrong(self, truth: Any, state: ArmState, now_s: float) -> bool:
        z_m = float(state.T_base_tcp[2, 3])
        descending = self._last_z_m is not None and z_m < self._last_z_m - 0.0005
        self._last_z_m = z_m
        stage, distance_m = self._sight.stage(truth), self._sight.distance_m(truth, state)
        if stage != self._stage_last or distance_m < self._nearest_m - _PROGRESS_M:
            self._stage_last, self._nearest_m, self._progress_s = stage, distance_m, now_s
        if now_s - self._progress_s > self._traits.stall_s:
            return True
        return self._sight.off_target(truth, state, descending=descending)

    def _calm(self) -> None:
        self._mood = _Mood.WATCHING
        self._takes_over_s = 0.0
        self._stage_at_start = 0
        self._off_m = np.zeros(2)
        self._stage_last, self._nearest_m, self._progress_s = 0, math.inf, 0.0


def _sight_of(task: SimulatedTask) -> TaskSight[Any]:
    """Return this person's eye for a task.

    They aim at the height where they took over: to rise, hover and come again would teach the policy to stall.
    """
    match task:
        case PlaceTask():
            return PlaceSight(task, PlaceStyle(correct_up_step_m=0.0, ready_m=0.004))
        case InsertTask():
            return InsertSight(task, InsertStyle(funnel=1.0, up_step_m=0.003))
        case _:
            raise TypeError(f"a {type(task).__name__} needs a sight of its own")

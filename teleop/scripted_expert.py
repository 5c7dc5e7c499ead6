"""The scripted expert as a person's device: holds the drive button throughout an episode and says when it is done."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from robot.arm_state import ArmState
from robot.simulation.expert import expert_motion
from robot.simulation.insert_task import InsertTask
from robot.simulation.motion import Motion
from robot.simulation.place_task import PlaceTask
from robot.simulation.task import SimulatedTask, TaskStatus
from teleop.human_input import HumanCommand, HumanEvent
from teleop.task_sight import SeenArm


class ScriptedExpert:
    """Demonstrates a simulated task from the scene's truth.

    Args:
        world: what the arm is in.
        task: that says when it is done.
        scale_m: the TCP's step at full deflection [m].
        motion: what they do in a state of the arm; left out, what the expert of a simulated task does.
    """

    def __init__(
        self,
        world: SeenArm,
        task: SimulatedTask,
        *,
        scale_m: tuple[float, float, float],
        motion: Callable[[ArmState], Motion] | None = None,
    ) -> None:
        self._world, self._task, self._scale_m = world, task, np.array(scale_m)
        self._motion = motion or _motion_of(task)
        self._arms = True
        self._stands_back = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def arm(self) -> None:
        """Arm again at the next poll, as the window asks a person to."""
        self._arms = True

    def lay_table(self) -> None:
        """They have laid the table anew and may begin."""
        self._stands_back = False

    def stand_back(self) -> None:
        """The episode is over: hands off while the robot goes home."""
        self._stands_back = True

    def poll(self, now_s: float) -> HumanCommand:
        """Arm first, then show one more tick of the task."""
        if self._arms:
            self._arms = False
            return HumanCommand(events=HumanEvent.ARM, polled_s=now_s)
        if self._stands_back:
            return HumanCommand(polled_s=now_s)
        state = self._world.arm_state()
        motion = self._motion(state)
        twist = np.zeros(6)
        twist[:3] = np.clip(motion.delta_m / self._scale_m, -1.0, 1.0)
        label = {TaskStatus.SUCCESS: HumanEvent.SUCCESS, TaskStatus.FAILURE: HumanEvent.FAILURE}.get(
            self._task.status(state), HumanEvent.NONE
        )
        return HumanCommand(twist=twist, gripper=motion.gripper, engaged=True, events=label, polled_s=now_s)


def _motion_of(task: SimulatedTask) -> Callable[[ArmState], Motion]:
    assert isinstance(task, (PlaceTask, InsertTask)), "of any other task the expert has to be given"
    return lambda state: expert_motion(task, state)

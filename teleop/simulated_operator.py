"""A person beside the simulated robot, for runs that nobody attends.

It sees the scene as a person would and nothing of the learner: no episode number, no residual, no weights. So
fewer interventions can only come from a better policy. It lets the policy go on until that is plainly going
wrong, needs time to react, sees and steers a little off, and hands back once the matter is put right.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.simulation.expert import GRASP_Z_M, ExpertStyle, expert_motion
from robot.simulation.place_task import PlaceTask, SceneTruth, TaskStatus
from robot.simulation.world import SimulatedWorld
from teleop.human_input import HumanCommand, HumanEvent

Array = NDArray[np.float64]
_NEAR_PAD_M = 0.06
_PROGRESS_M = 0.003


@dataclass(frozen=True, kw_only=True)
class OperatorTraits:
    """How this person is.

    Attributes:
        reaction_s: least and greatest time from seeing that it goes wrong to holding the drive button [s].
        sight_m: spread of the error in judging where things are, new at each takeover [m].
        hand: spread of the unsteadiness of the stick, share of full deflection.
        watch_below_m: height above grasp or place below which a descent is judged [m].
        grasp_off_m: lateral miss that worries them while descending to the block [m].
        grasp_slack: further miss that they allow per metre of remaining height.
        place_off_m: as `grasp_off_m`, over the pad [m].
        place_slack: as `grasp_slack`, over the pad.
        stall_s: how long they wait for a robot that comes no nearer to its goal [s].
    """

    reaction_s: tuple[float, float] = (0.3, 0.5)
    sight_m: float = 0.001
    hand: float = 0.015
    watch_below_m: float = 0.09
    grasp_off_m: float = 0.013
    grasp_slack: float = 0.3
    place_off_m: float = 0.0085
    place_slack: float = 0.2
    stall_s: float = 1.0


class _Mood(enum.Enum):
    WATCHING = 1
    REACTING = 2
    DRIVING = 3


class SimulatedOperator:
    """Human input that needs nobody. Arms the robot, corrects it and labels how each episode ended."""

    _held_last: bool
    _nearest_m: float
    _progress_s: float

    def __init__(
        self,
        world: SimulatedWorld,
        task: PlaceTask,
        *,
        scale_m: tuple[float, float, float],
        period_s: float,
        seed: int,
        traits: OperatorTraits | None = None,
    ) -> None:
        """Args: `scale_m` is the TCP's step at full deflection [m]; `seed` makes this person's randomness."""
        self._world, self._task = world, task
        self._scale_m, self._period_s = np.array(scale_m), period_s
        self._rng = np.random.default_rng([seed, 77])
        self._traits = traits or OperatorTraits()
        # Aims at the height where they took over: to rise, hover and come again would teach the policy to stall.
        self._style = ExpertStyle(correct_up_step_m=0.0, ready_m=0.004)
        self._arms = True
        self._stands_back = True
        self._last_z_m: float | None = None
        self._mood = _Mood.WATCHING
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
        truth = self._task.truth(state)
        label = {TaskStatus.SUCCESS: HumanEvent.SUCCESS, TaskStatus.FAILURE: HumanEvent.FAILURE}.get(
            self._task.status(state), HumanEvent.NONE
        )
        wrong = self._goes_wrong(truth, state, now_s)
        if self._mood is _Mood.WATCHING and wrong:
            self._mood, self._takes_over_s = _Mood.REACTING, now_s + self._rng.uniform(*self._traits.reaction_s)
        if self._mood is _Mood.REACTING and now_s >= self._takes_over_s:
            self._mood = _Mood.DRIVING if wrong else _Mood.WATCHING
            self._held_at_start = truth.held
            self._off_m = self._rng.normal(0.0, self._traits.sight_m, 2)
        if self._mood is _Mood.DRIVING and truth.held != self._held_at_start and self._settled(truth, state):
            self._calm()
        if self._mood is not _Mood.DRIVING:
            return HumanCommand(events=label, polled_s=now_s)
        return replace(self._drive(truth, state), events=label, polled_s=now_s)

    def _drive(self, truth: SceneTruth, state: ArmState) -> HumanCommand:
        """Steer as the expert would, towards where they believe things to be."""
        seen = replace(
            truth,
            block_m=truth.block_m if truth.held else truth.block_m + np.array([*self._off_m, 0.0]),
            pad_xy_m=truth.pad_xy_m + self._off_m if truth.held else truth.pad_xy_m,
        )
        motion = expert_motion(seen, state, self._style)
        twist = np.zeros(6)
        twist[:3] = motion.delta_m / self._scale_m + self._rng.normal(0.0, self._traits.hand, 3)
        return HumanCommand(twist=np.clip(twist, -1.0, 1.0), gripper=motion.gripper, engaged=True)

    def _goes_wrong(self, truth: SceneTruth, state: ArmState, now_s: float) -> bool:
        traits = self._traits
        x, y, z = state.T_base_tcp[:3, 3].tolist()
        block_x, block_y, block_z = truth.block_m.tolist()
        pad_x, pad_y = truth.pad_xy_m.tolist()
        descending = self._last_z_m is not None and z < self._last_z_m - 0.0005
        self._last_z_m = z
        distance_m = math.dist((x, y, z), (pad_x, pad_y, GRASP_Z_M) if truth.held else (block_x, block_y, block_z))
        if truth.held != self._held_last or distance_m < self._nearest_m - _PROGRESS_M:
            self._held_last, self._nearest_m, self._progress_s = truth.held, distance_m, now_s
        if now_s - self._progress_s > traits.stall_s:
            return True
        height_m: float = max(0.0, z - GRASP_Z_M)
        off_m = math.dist((block_x, block_y), (pad_x, pad_y) if truth.held else (x, y))
        if not descending or height_m > traits.watch_below_m:
            return False
        if truth.held:
            # far from the pad it is not a placing yet: the hand settles on the block as it grasps
            return traits.place_off_m + traits.place_slack * height_m < off_m < _NEAR_PAD_M
        return state.gripper_width_m >= 0.06 and off_m > traits.grasp_off_m + traits.grasp_slack * height_m

    def _settled(self, truth: SceneTruth, state: ArmState) -> bool:
        """True when what they took over for is done: the block is well in the hand, or let go of."""
        return truth.held or state.gripper_width_m > 0.06

    def _calm(self) -> None:
        self._mood = _Mood.WATCHING
        self._takes_over_s = 0.0
        self._held_at_start = False
        self._off_m = np.zeros(2)
        self._held_last, self._nearest_m, self._progress_s = False, math.inf, 0.0

"""What a loop drives, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from perception.observation import Observation
from perception.synchroniser import Synchroniser
from policy.chunk_source import ChunkSource
from policy.episode_header import LabelSource
from policy.episode_schema import EpisodeSpec
from robot.arm import Arm
from robot.clock import Clock
from teleop.exploration import Exploration
from teleop.homing import Homing
from teleop.human_input import HumanCommand, HumanInput
from teleop.judge import Judge
from teleop.recorder import Recorder
from teleop.reward_watch import RewardWatch
from teleop.tick import TickInputs, TickOutputs, TickPipeline, TickState
from teleop.weights_in_force import WeightsInForce


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One finished tick, for whoever watches (window, statistics)."""

    inputs: TickInputs
    outputs: TickOutputs
    after: TickState


class Watcher(Protocol):
    """Looks at the loop, which waits for it: a fraction of a millisecond is its due."""

    def tick(self, tick: Tick) -> None:
        """See one finished tick."""
        ...

    def waiting(self, observation: Observation, human: HumanCommand) -> None:
        """See the robot wait for the person to arm it."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopParts:
    """What a loop drives; all opened by the caller.

    Attributes:
        health: called at every tick; raises HardwareError when the run cannot go on.
        homing: None for an arm that a reset puts at its beginning: a recording, an environment.
        judge: the task function; None where it has no say.
        reward: a reward model that looks on, and where it `judges` ends the episode with its success.
        labels: whose word the human input's labels are.
        chunks: for a policy that is asked ahead of time, None for one that is asked within the tick.
        spec: layout of the log's rows.
        stall_s: how long the loop may stand still before the person has to arm again [s].
        task_reward: the task's own reward of the step that the last command led to; None where it gives none.
        rehearse_s: how long before each tick the loop wakes to rehearse it; 0 on a virtual clock [s].
        timeout_s: when an episode that nobody judged ends [s].
        reset_timeout_s: for how long homing may drive at a stretch before it is given up [s].
    """

    clock: Clock
    arm: Arm
    synchroniser: Synchroniser
    human: HumanInput
    pipeline: TickPipeline
    recorder: Recorder
    weights: WeightsInForce
    exploration: Exploration
    health: Callable[[], None]
    homing: Homing | None
    judge: Judge | None
    watcher: Watcher | None
    chunks: ChunkSource | None = None
    reward: RewardWatch | None = None
    task_reward: Callable[[], float] | None = None
    rehearse_s: float = 0.0
    stall_s: float = 1.0
    labels: LabelSource
    spec: EpisodeSpec
    period_s: float
    timeout_s: float
    reset_timeout_s: float

"""The control loop on the simulated station with a tiny policy and a scripted person, on a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from perception.observation import Observation
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import Row
from policy.residual import ResidualHead
from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import SafeCommand
from robot.errors import HardwareError
from teleop.episode_result import EpisodeResult
from teleop.exploration import Exploration
from teleop.human_input import HumanCommand, HumanEvent
from teleop.loop import ControlLoop
from teleop.loop_parts import LoopParts, Tick
from teleop.rig import Rig, make_pipeline
from teleop.station import ExplorationConfig, load_station
from teleop.tick import TickState
from teleop.weights_in_force import WeightsInForce
from tests.episodes import header
from tests.replay_run import STATION
from tests.tick_bench import zero_head

PERIOD_S = 0.05
TIMEOUT_S, RESET_TIMEOUT_S = 1.0, 5.0
Script = Callable[[int], HumanCommand]


def says(events: HumanEvent = HumanEvent.NONE, *, drives: bool = False) -> HumanCommand:
    """A person who presses something and perhaps drives ahead at full speed."""
    return HumanCommand(twist=np.array([1.0 * drives, 0, 0, 0, 0, 0]), engaged=drives, events=events)


def when(**at: HumanCommand) -> Script:
    """Say something once so many free ticks are done: `when(t3=says(...))`; nothing otherwise."""
    return lambda free: at.get(f"t{free}", says())


class Person:
    """Arms when told to, then follows the script."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.script: Script = lambda free: says()
        self.free = 0  # ticks of this episode after its reset
        self.arms = True
        self.waits_for: list[HumanCommand] = []  # said first, one a poll

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def poll(self, now_s: float) -> HumanCommand:
        command = self.waits_for.pop(0) if self.waits_for else self.script(self.free)
        if self.arms:
            self.arms, command = False, says(HumanEvent.ARM)
        return replace(command, polled_s=now_s)


class Rows:
    """Keeps what the loop records, by episode."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.outcomes: list[EpisodeOutcome] = []

    def begin(self, header: EpisodeHeader) -> None:
        self.rows = []

    def put(self, row: Row) -> bool:
        self.rows.append(row.copy())
        return True

    def end(self, outcome: EpisodeOutcome) -> None:
        self.outcomes.append(outcome)

    def close(self) -> None:
        return None


class SlowArm:
    """An arm whose command takes as long as a test says: what a tick costs. It may also be stuck."""

    def __init__(self, arm: Arm, clock: VirtualClock) -> None:
        self.arm, self.clock = arm, clock
        self.takes_s: Callable[[], float] = lambda: 0.0
        self.commands: list[SafeCommand | None] = []
        self.stuck = False
        self.gone: str | None = None  # why it gives no state
        self.deaf: str | None = None  # why it takes no command
        self.joint_count, self.open_loop = arm.joint_count, arm.open_loop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def state(self) -> ArmState:
        if self.gone is not None:
            raise HardwareError(self.gone)
        return self.arm.state()

    def send(self, command: SafeCommand) -> None:
        self.commands.append(command)
        if self.deaf is not None:
            raise HardwareError(self.deaf)
        if not self.stuck:
            self.arm.send(command)
        self.clock.sleep_until(self.clock.now_s() + self.takes_s())

    def hold(self) -> None:
        self.commands.append(None)
        self.arm.hold()

    def clear_fault(self) -> None:
        self.arm.clear_fault()


class NextHead(WeightsInForce):
    """Weights that a test changes between two ticks."""

    def __init__(self, head: ResidualHead) -> None:
        super().__init__(head, 0, "0" * 64)
        self.next: tuple[ResidualHead, int] | None = None

    def refresh(self) -> None:
        if self.next is not None:
            (self.head, self.version), self.next = self.next, None


class Verdicts:
    """A task function that a test makes say something after so many calls."""

    def __init__(self) -> None:
        self.at: dict[int, Outcome] = {}
        self.calls = self.resets = 0

    def reset(self) -> None:
        self.resets += 1
        self.calls = 0

    def outcome(self, state: ArmState) -> Outcome | None:
        self.calls += 1
        return self.at.get(self.calls)


class LoopBench:
    """An opened rig and its loop; also watches the ticks."""

    def __init__(self, bundle: Path, *more: tuple[str, str]) -> None:
        size = (("height", "32"), ("width", "40"))
        loaded = load_station(
            STATION,
            [
                ("policy.bundle", json.dumps(str(bundle))),
                ("policy.provider", '"cpu"'),
                ("arm.home_m", "[0.40, 0.0, 0.40]"),
                *((f"camera.{name}.{edge}", pixels) for name in ("front", "wrist") for edge, pixels in size),
                ("episode.timeout_s", str(TIMEOUT_S)),
                ("episode.reset_timeout_s", str(RESET_TIMEOUT_S)),
                *more,
            ],
        )
        self.clock = VirtualClock(100.0)
        self.rig = Rig(loaded, self.clock, seed=0)
        self.rig.__enter__()
        self.arm = SlowArm(self.rig.arm, self.clock)
        self.person, self.recorder, self.judge = Person(self.clock), Rows(), Verdicts()
        self.weights = NextHead(zero_head())
        self.unfit: str | None = None  # why the run cannot go on
        self.ticks: list[Tick] = []
        self.waited = 0
        self.laid_s: list[float] = []
        station = loaded.station
        self.loop = ControlLoop(
            LoopParts(
                clock=self.clock,
                arm=self.arm,
                synchroniser=self.rig.synchroniser,
                human=self.person,
                pipeline=make_pipeline(station, self.rig.bundle, self.rig.safety()),
                recorder=self.recorder,
                weights=self.weights,
                exploration=Exploration(ExplorationConfig(), seed=0),
                health=self._health,
                homing=self.rig.homing(),
                judge=self.judge,
                reward=self.rig.reward,
                watcher=self,
                labels=LabelSource.PERSON,
                spec=self.rig.spec,
                period_s=station.period_s,
                timeout_s=station.episode.timeout_s,
                reset_timeout_s=station.episode.reset_timeout_s,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rig.__exit__(kind, error, trace)

    def tick(self, tick: Tick) -> None:
        """See a tick."""
        self.ticks.append(tick)
        self.person.free += tick.inputs.reset is None

    def waiting(self, observation: Observation, human: HumanCommand) -> None:
        """See the robot wait."""
        self.waited += 1

    def episode(self, script: Script | None = None) -> EpisodeResult:
        """Run one episode by `script` and keep its ticks and rows."""
        self.person.script = script or (lambda free: says())
        self.person.free, self.ticks = 0, []
        return self.loop.run_episode(self._header, self.laid_s.append)

    def _health(self) -> None:
        if self.unfit is not None:
            raise HardwareError(self.unfit)

    def _header(self, state: TickState) -> EpisodeHeader:
        spec = self.rig.spec
        made = header()
        return made.model_copy(
            update={
                "spec": spec,
                "reward_sha256": self.rig.reward_sha256,
                "filter_state": json.loads(state.filter.to_json()),
            }
        )

    @property
    def free_rows(self) -> list[Row]:
        """Rows after the reset."""
        return [row for row in self.recorder.rows if np.isnan(row["tick/reset"]).all()]

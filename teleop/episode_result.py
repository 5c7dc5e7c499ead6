"""What became of one episode, counted tick by tick."""

from __future__ import annotations

from dataclasses import dataclass

from policy.episode_header import EpisodeOutcome
from robot.errors import HardwareError
from teleop.arbiter import Source
from teleop.human_input import HumanEvent
from teleop.loop_parts import Tick


@dataclass
class EpisodeResult:
    """What became of one episode.

    Attributes:
        outcome: as recorded.
        ticks: ticks after the reset.
        reset_ticks: ticks of homing before them.
        skipped_ticks: ticks that did not run because one before them took too long.
        human_ticks: ticks after the reset that the person drove.
        policy_failures: ticks in which the base policy raised, and what it said last.
        interventions: how often the person took over after the reset.
        quit: True when the person closed the run.
        failure: why the run cannot go on, None while it can.
    """

    outcome: EpisodeOutcome | None = None
    ticks: int = 0
    reset_ticks: int = 0
    skipped_ticks: int = 0
    human_ticks: int = 0
    interventions: int = 0
    policy_failures: tuple[int, str] = (0, "")
    quit: bool = False
    failure: HardwareError | None = None

    def count(self, tick: Tick, previous: Source) -> None:
        """Take one more tick into the counts."""
        source = tick.outputs.decision.source
        resetting = tick.inputs.reset is not None
        self.reset_ticks += resetting
        self.ticks += not resetting
        drives = source is Source.HUMAN and not resetting
        self.human_ticks += drives
        self.interventions += drives and previous is not Source.HUMAN
        self.skipped_ticks = tick.inputs.index + 1 - self.rows
        if tick.outputs.policy_failure is not None:
            self.policy_failures = self.policy_failures[0] + 1, tick.outputs.policy_failure
        self.quit |= HumanEvent.QUIT in tick.inputs.human.events

    @property
    def rows(self) -> int:
        """Ticks that ran."""
        return self.ticks + self.reset_ticks

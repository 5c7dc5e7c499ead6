"""What a run is told beside its station."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robot.simulation.layout import Split
from teleop.inject import Fault

OperatorKind = Literal["simulated", "expert", "gamepad", "keyboard", "none"]
OWN_LEARNER = "own"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside its station.

    Attributes:
        out: run folder.
        operator: whose hands are on it.
        seed: of layouts, exploration and the simulated person.
        split: family of layouts.
        learner: endpoint of a learner process, `own` for one of this run's in real time, None without.
        keys: folder of this robot's keys, for a learner on another machine.
        weights: message of the weights to start from; None for a residual of zero, or with a learner for those that a
            resumed run had in force last.
        explore: add exploration noise (training only).
        resume: go on with the run in `out`.
        faults: to be injected.
        drives_through: the simulated person drives on to the end where the policy made nothing of the last handback.
        recorded: of a recorded arm, which of the recording's episodes are played, one for each of the run's own; all
            when empty.
    """

    out: Path
    operator: OperatorKind
    seed: int = 0
    split: Split = Split.TRAINING
    learner: str | None = None
    keys: Path | None = None
    weights: bytes | None = None
    explore: bool = False
    resume: bool = False
    recorded: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()
    drives_through: bool = False

"""One look at a rig that nobody here moves: its cameras' own pictures, and where its arm was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perception.frame import Frame
from robot.arm_state import ArmState


@dataclass(frozen=True, kw_only=True, eq=False)
class RigLook:
    """One look at a rig.

    Attributes:
        now_s: when [s].
        frames: full-size pictures that belong together, by camera; a camera that is silent has none.
        silent_s: for how long such a camera has given nothing [s].
        arm: states measured since the last look, oldest first; empty without an arm.
        arm_problem: why there is no state of the arm.
        news: what else a person should know, such as a camera that was started anew.
    """

    now_s: float
    frames: Mapping[str, Frame]
    silent_s: Mapping[str, float]
    arm: Sequence[ArmState] = ()
    arm_problem: str | None = None
    news: Sequence[str] = ()

"""Who says how an episode ended when the person does not."""

from __future__ import annotations

from typing import Protocol

from policy.episode_header import Outcome
from robot.arm_state import ArmState


class Judge(Protocol):
    """A task function. The person's label wins over it."""

    def reset(self) -> None:
        """Forget the last episode."""
        ...

    def outcome(self, state: ArmState) -> Outcome | None:
        """Return the outcome once that is plain, None while the task goes on; called once per tick."""
        ...

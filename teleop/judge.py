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


class LastingJudge:
    """A task function whose word counts once it was the same for some time.

    Without it an episode ends with the first tick that is a success, and its log shows none.
    """

    def __init__(self, judge: Judge, ticks: int) -> None:
        self._judge, self._ticks = judge, ticks
        self._said: Outcome | None = None
        self._since = 0

    def reset(self) -> None:
        """Forget the last episode."""
        self._judge.reset()
        self._said, self._since = None, 0

    def outcome(self, state: ArmState) -> Outcome | None:
        """Return what the judge said now and on each of the `ticks` before."""
        said = self._judge.outcome(state)
        self._since = self._since + 1 if said is self._said else 0
        self._said = said
        return said if self._since >= self._ticks else None

"""What the residual had seen of the last ticks, by the log: where a replay goes on from the state of a logged tick."""

from __future__ import annotations

import numpy as np

from policy.episode_schema import Row
from policy.observation_history import HistoryTicks, Window, next_window
from teleop.arbiter import Source
from teleop.tick import TickInputs

_SEEN = ("tick/features", "tick/base", "tick/commanded")


class LoggedWindows:
    """Follows the windows of an episode, row by row.

    Attributes:
        window: after the last row, see `TickState.window`.
    """

    def __init__(self, history: HistoryTicks) -> None:
        self._history = history
        self.window: Window | None = None
        self._unknown = 0

    def restart(self) -> None:
        """Rows before the next one are lost."""
        self.window, self._unknown = None, self._history.longest - 1

    @property
    def known(self) -> bool:
        """False while the next window may reach back to a lost row."""
        return self._unknown <= 0

    def see(self, row: Row, inputs: TickInputs) -> None:
        """Go on by a row."""
        if self._history.longest == 1:
            return
        if _acted(row, inputs):
            features, proprio = row["tick/features"], inputs.observation.proprio
            self.window = next_window(self._history, self.window, inputs.index, features, proprio)
            self._unknown -= 1
        else:
            self.window, self._unknown = None, 0


def _acted(row: Row, inputs: TickInputs) -> bool:
    """Say of a logged tick what `teleop.tick.acted` says of one that runs."""
    if int(row["tick/source"]) not in (Source.POLICY, Source.HUMAN) or row["tick/held"] or inputs.reset is not None:
        return False
    known = (inputs.observation.proprio, *(row[name] for name in _SEEN))
    return all(bool(np.isfinite(values).all()) for values in known)

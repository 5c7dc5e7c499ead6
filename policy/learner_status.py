"""What the learner tells of itself, for people and for the run beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from robot.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class LearnerStatus:
    """What the learner did so far; written to status.json in its folder about once a second.

    Attributes:
        endpoint: where robots connect; None offline.
        phase: loading, gathering (transitions to begin with), learning, waiting (for a robot) or stopped.
        updates: made since the very start.
        updates_per_s: of this process, over the time spent on updates.
        episodes, transitions, guided: in the replay buffer; `guided` were shown by a person.
        version: of the weights published last.
        accepted, refused: versions, as robots answered, since this process started.
        malformed: messages dropped.
        ignored: sound messages that came out of place.
        withdrawn: versions that robots took back after they had accepted them.
        robots: that said hello within the last seconds.
        denied: connections of robots whose key may not connect.
        behind: ticks come faster than they can be learned from.
        figures: what the last update told.
        reach: what the corrections ask of the residual, see `policy.reachability.Reachability.summary`.
        advice: lines about it for the person; empty when all is within reach.
        problem: the last thing that went wrong, or "".
    """

    endpoint: str | None
    pid: int
    phase: str
    updates: int = 0
    updates_per_s: float = 0.0
    episodes: int = 0
    transitions: int = 0
    guided: int = 0
    version: int = 0
    accepted: int = 0
    refused: int = 0
    malformed: int = 0
    ignored: int = 0
    withdrawn: int = 0
    robots: int = 0
    denied: int = 0
    behind: bool = False
    figures: dict[str, float] | None = None
    reach: dict[str, dict[str, float | int | str | None]] | None = None
    advice: tuple[str, ...] = ()
    problem: str = ""

    def line(self) -> str:
        """Return what a person wants to see of it while it works."""
        return (
            f"{self.phase}: {self.updates} updates ({self.updates_per_s:.0f}/s), {self.episodes} episodes, "
            f"{self.transitions} transitions ({self.guided} shown by a person), weights {self.version} "
            f"({self.accepted} accepted, {self.refused} refused)"
            + (f", {self.withdrawn} taken back" if self.withdrawn else "")
            + (f", {self.robots} robots" if self.robots > 1 else "")
            + (f", {self.denied} connections with an unknown key" if self.denied else "")
            + (", behind" if self.behind else "")
            + (f"; {self.problem}" if self.problem else "")
        )


class StatusFile:
    """Writes the status where others may read it at any time; the first one also goes to stdout, as one line.

    `announce` False leaves stdout alone.
    """

    def __init__(self, path: Path, *, announce: bool = True) -> None:
        self._path, self._said = path, not announce

    def __call__(self, status: LearnerStatus) -> None:
        """Replace the file; after a crash of the machine, or where the disk is full, it may be an older one."""
        text = json.dumps(asdict(status))
        with suppress(OSError):  # learning goes on without it; the next one may find room
            write_whole(self._path, text.encode(), durable=False)
        if not self._said:
            print(text, flush=True)  # and no more, for nobody may be reading the pipe
            self._said = True

"""Replays the episodes whose paths come on stdin, each ended by a zero byte; one line per episode goes to stdout.

Started by `teleop.replay` as `python -m teleop.replay_worker`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from robot.errors import BadInputError
from teleop.replay_episode import EpisodeReplay


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to us, too; whoever started us ends us
    replay, rest = EpisodeReplay(), b""
    while data := os.read(sys.stdin.fileno(), 65536):
        *paths, rest = (rest + data).split(b"\0")
        for path in paths:
            try:
                line = "report " + replay.verify(Path(os.fsdecode(path))).model_dump_json()
            except BadInputError as error:
                line = "bad " + str(error).replace("\n", " ")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""A process for the supervisor's tests: it lives, or does what its first argument says."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from robot.supervised import Supervised


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["live", "refuse", "die", "once", "dies-once"])
    parser.add_argument("--file", type=int)
    parser.add_argument("--mark", type=Path)
    Supervised.add_arguments(parser)
    args = parser.parse_args()
    if args.what == "refuse" or (args.mark is not None and args.mark.exists()):
        print("stand-in: no such thing; choose another", file=sys.stderr)
        return 2
    supervised = Supervised(args.board, args.place, args.parent, orphaned=signal.SIGKILL)
    if args.mark is not None:
        args.mark.touch()
    if args.what in ("die", "dies-once"):
        return 5
    supervised.ready()
    while not supervised.stopping:
        supervised.beat()
        if args.file is not None and supervised.fault[0]:
            os.write(args.file, f"{supervised.fault[0]}:{supervised.fault[1]:g};".encode())
        time.sleep(0.01)
    if args.file is not None:
        os.write(args.file, f"end{args.place};".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

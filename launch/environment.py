"""The way from a script to the packages: a Python without them gets one line instead of a traceback.

BLAS gets one thread before numpy loads: results must not depend on the number of cores, and its threads would
fight the loop for them.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while libraries load, before `cli.run` takes over: a line, and the status that a shell shows as 130."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: stopped by Ctrl-C", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _interrupted

try:
    from teleop import cli
except ImportError as error:
    print(f"{sys.executable}: {error}; run ./launch/setup.sh once, then use .venv/bin/python", file=sys.stderr)
    sys.exit(2)

__all__ = ["cli"]

"""The way from a script to the packages: a Python without them gets one line instead of a traceback.

BLAS gets one thread before numpy loads: results must not depend on the number of cores, and its threads would
fight the loop for them.
"""

import os
import sys

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

try:
    from teleop import cli
except ImportError as error:
    print(f"{sys.executable}: {error}; run ./launch/setup.sh once, then use .venv/bin/python", file=sys.stderr)
    sys.exit(2)

__all__ = ["cli"]

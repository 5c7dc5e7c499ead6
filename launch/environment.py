"""The way from a script to the packages: a Python without them gets one line instead of a traceback."""

import sys

try:
    from teleop import cli
except ImportError as error:
    print(f"{sys.executable}: {error}; run ./launch/setup.sh once, then use .venv/bin/python", file=sys.stderr)
    sys.exit(2)

__all__ = ["cli"]

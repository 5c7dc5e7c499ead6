#!/usr/bin/env bash
# Sets up what is missing, then runs the demo; options are those of launch/run_demo.py (try --help).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh"
exec "$root/.venv/bin/python" "$root/launch/run_demo.py" "$@"

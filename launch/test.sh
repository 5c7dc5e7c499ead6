#!/usr/bin/env bash
# Sets up what is missing, then runs the tests; arguments go to pytest (paths from the repository's root).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/setup.sh
# One thread per worker: two workers with a thread pool each are slower on two cores than two without.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist loadgroup "$@"

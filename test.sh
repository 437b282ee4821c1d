#!/usr/bin/env bash
# Checks format, lint, types, and runs the tests. Arguments are passed to pytest:  bash test.sh -k flow
# Requires Python 3.11 or newer. Uses the active environment if it meets requirements-dev.txt, else installs into .venv.
set -euo pipefail
cd "$(dirname "$0")"
source demo/environment.sh

use_python requirements-dev.txt
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy .
# one process more than cores, as many tests wait for other processes; one thread each; in one process: bash test.sh -n 0
workers=$(($(getconf _NPROCESSORS_ONLN) + 1))
OMP_NUM_THREADS=1 exec "$python" -m pytest -n $workers --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"

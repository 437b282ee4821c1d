#!/usr/bin/env bash
# Format, lint, types and tests; arguments go on to pytest:  bash test.sh -k flow
# Needs Python 3.11 or newer. Installs into .venv, or uses the active environment where that has all it needs.
set -euo pipefail
cd "$(dirname "$0")"
source demo/environment.sh

use_python requirements-dev.txt
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy .
# files of tests beside each other, each process with one thread; one after the other: bash test.sh -n 0
OMP_NUM_THREADS=1 exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"

#!/usr/bin/env bash
# Format, lint, types and tests; arguments go on to pytest:  bash test.sh -k flow
# Needs Python 3.11 or newer. Installs into .venv, or uses the active environment where that has all it needs.
set -euo pipefail
cd "$(dirname "$0")"

fits() { # does this Python have what the tests import?
    "$1" - <<'PYTHON' 2>/dev/null
import importlib.util as u, sys
needed = "torch torchvision open_clip ptlflow cv2 av h5py yaml tensorboard tqdm pytest hypothesis sklearn ruff mypy"
sys.exit(sys.version_info < (3, 11) or any(u.find_spec(name) is None for name in needed.split()))
PYTHON
}

newest_python() {
    for name in python3 python python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: test.sh needs Python 3.11 or newer; install one and make it python3" >&2
    exit 2
}

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && fits python; then
    python=python
else
    python=.venv/bin/python
    wanted=$(cat requirements.txt requirements-dev.txt)
    if [ ! -x "$python" ] || [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
        echo "installing into .venv (some minutes the first time)"
        "$(newest_python)" -m venv .venv
        "$python" -m pip install --quiet --requirement requirements-dev.txt
        echo "$wanted" >.venv/installed
    fi
fi

"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy .
exec "$python" -m pytest "$@"

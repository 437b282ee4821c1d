# Sourced by demo.sh and test.sh: sets $python to a Python that has what a requirements file asks for.
# The active environment where it fits, else .venv, which is made and filled as needed.

fits() { # fits PYTHON FILE: is it 3.11 or newer, with every distribution of the file at its lower bound or above, or below <?
    "$1" - "$2" <<'PYTHON' 2>/dev/null
import re, sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALIKE = {"opencv-python": "opencv-python-headless"}

def numbers(text):
    return [int(part) for part in re.findall(r"\d+", text)[:3]]

def there(wanted):
    name, bound, limit = re.match(r"([^<>=]+)(>=|<)?(.*)", wanted).groups()
    for candidate in filter(None, (name, ALIKE.get(name))):
        try:
            found = numbers(version(candidate))
        except PackageNotFoundError:
            continue
        return found < numbers(limit) if bound == "<" else found >= numbers(limit)
    return bound == "<"

def met(path):
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["-r"]:
            yield from met(path.parent / words[1])
        elif words:
            yield there(words[0])

sys.exit(sys.version_info < (3, 11) or not all(met(Path(sys.argv[1]))))
PYTHON
}

newest_python() {
    for name in python3 python python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: this needs Python 3.11 or newer; install one and make it python3" >&2
    exit 2
}

use_python() { # use_python FILE
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && fits python "$1"; then
        python=python
        return
    fi
    python=.venv/bin/python
    if ! { [ -x "$python" ] && fits "$python" "$1"; }; then
        echo "installing $1 into .venv (some minutes the first time)"
        local newest
        newest=$(newest_python)
        "$newest" -m venv .venv
        "$python" -m pip install --quiet --requirement "$1"
    fi
}

# Sourced by demo.sh, reproduce_animal_kingdom.sh and test.sh: finds a Python that meets a requirements file, in the
# active environment or in .venv, which is created if needed; and reads the JSON reports of runs.

satisfies() { # satisfies PYTHON FILE: succeed if it is 3.11 or newer and its packages meet all bounds (>= or <)
    "$1" - "$2" <<'PYTHON' 2>/dev/null
import re, sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALTERNATIVES = {"opencv-python": "opencv-python-headless"}

def version_numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)[:3]]

def is_met(requirement):
    name, bounds = re.match(r"([^<>=]+)(.*)", requirement).groups()
    for candidate in filter(None, (name, ALTERNATIVES.get(name))):
        try:
            installed = version_numbers(version(candidate))
        except PackageNotFoundError:
            continue
        pairs = re.findall(r"(>=|<)([\d.]+)", bounds)
        return all((installed >= version_numbers(n)) == (bound == ">=") for bound, n in pairs)
    return bounds.startswith("<")  # an upper bound of a package that another one may need

def check_file(path):
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["-r"]:
            yield from check_file(path.parent / words[1])
        elif words:
            yield is_met(words[0])

sys.exit(sys.version_info < (3, 11) or not all(check_file(Path(sys.argv[1]))))
PYTHON
}

find_python() { # print the name of a Python 3.11 or newer
    for name in python3 python python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer is required; install it as python3" >&2
    exit 2
}

use_python() { # use_python FILE: set $python
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && satisfies python "$1"; then
        python=python
        return
    fi
    python=.venv/bin/python
    if ! { [ -x "$python" ] && satisfies "$python" "$1"; }; then
        echo "installing $1 into .venv (some minutes)"
        local system_python
        system_python=$(find_python)
        "$system_python" -m venv .venv
        "$python" -m pip install --quiet --requirement "$1"
    fi
}

all_reports() { # all_reports EXPRESSION FILE...: succeed if all reports (--report) exist and the Python expression holds for each
    "$python" - "${@:2}" <<PYTHON 2>/dev/null
import json, sys

reports = [json.load(open(path, "rb")) for path in sys.argv[1:]]
sys.exit(not all($1 for report in reports))
PYTHON
}

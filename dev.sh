#!/usr/bin/env bash
# Everything a developer runs, from a bare checkout: bash dev.sh demo | test | slow | fuzz | bench NAME
#
# Makes .venv (or the folder that SCOPEFLOW_VENV names) and installs scopeflow into it when needed.
# SCOPEFLOW_PYTHON names the interpreter, if the one on the path is older than 3.11.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

environment=${SCOPEFLOW_VENV:-.venv}
python=$environment/bin/python

find_python() {
    local candidate
    for candidate in ${SCOPEFLOW_PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found; install it, or name it with" \
        "SCOPEFLOW_PYTHON=/path/to/python" >&2
    exit 1
}

set_up() {
    local mark wanted
    mark=$environment/.scopeflow-installed
    wanted=$(cksum < pyproject.toml)
    if [[ -x $python && -f $mark && $(<"$mark") == "$wanted" ]]; then
        return
    fi
    if [[ ! -x $python ]]; then
        local base
        base=$(find_python)
        echo "Making $environment with $("$base" --version)"
        "$base" -m venv "$environment"
    fi
    echo "Installing scopeflow and its tools into $environment"
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
    echo "$wanted" > "$mark"
}

case ${1:-} in
demo)
    set_up
    "$python" -m scopeflow demo "${@:2}"
    ;;
test)
    set_up
    "$python" -m ruff check
    "$python" -m ruff format --check
    "$python" -m mypy
    "$environment/bin/lint-imports"
    # Files of tests go to as many processes as there are processors, at most four.
    "$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "${@:2}"
    ;;
slow)
    set_up
    "$python" -m pytest -m slow "${@:2}"
    ;;
fuzz)
    set_up
    "$python" -m pytest -m fuzz -o faulthandler_timeout=0 --numprocesses auto --maxprocesses 4 "${@:2}"
    ;;
bench)
    set_up
    # The other program runs in an environment of its own; benchmarks/peers says how to name it.
    if [[ ! -f benchmarks/${2:-}.py ]]; then
        echo "usage: bash dev.sh bench NAME [options], where benchmarks/NAME.py exists" >&2
        exit 2
    fi
    "$python" "benchmarks/$2.py" "${@:3}"
    ;;
*)
    echo "usage: bash dev.sh demo [OUTPUT] | test | slow | fuzz | bench NAME [options]" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# Make or renew a virtual environment. Usage: scripts/venv.sh demo|dev|docs|pictures
#   demo: .venv with what the example needs to run; dev: that and the tools for tests and checks;
#   docs: .venvs/docs, with what builds the documentation site; pictures: .venvs/pictures, with what drives a browser.
# PYTHON names the interpreter; otherwise the first of 3.10 to 3.14 that is found.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=$1
venv=.venv
case $purpose in docs | pictures) venv=.venvs/$purpose ;; esac
log=$venv/install.log

fits() { # INTERPRETER
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON-}" ]; then
        fits "$PYTHON" && command -v "$PYTHON" && return
        echo "PYTHON=$PYTHON is not a Python 3.10 to 3.14" >&2
        return 1
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        fits "$candidate" && command -v "$candidate" && return
    done
    echo "no Python 3.10 to 3.14 found: install one, or name it with PYTHON=/path/to/python3" >&2
    return 1
}

make_venv() {
    local python
    python=$(find_python)
    echo "creating $venv with $("$python" --version) ($python)"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        echo "$python can't create virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
}

# An environment of an interpreter that is gone, or that a newer version replaced, is made anew.
{ fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; } || make_venv

wanted=(-e . -e examples/digits)
case $purpose in
    dev) wanted+=(--group dev) ;;
    docs | pictures) wanted=(-r "scripts/$purpose-requirements.txt") ;;
esac

echo "installing packages into $venv (about a minute the first time)"
# uv is many times faster, but does not know pip's own settings (mirrors, certificates, folders of wheels).
# So where it does not get through, pip does the work and has the last word.
if "$venv/bin/python" -m pip install --upgrade pip uv >"$log" 2>&1 &&
    "$venv/bin/uv" pip install --python "$venv/bin/python" --compile-bytecode "${wanted[@]}" >>"$log" 2>&1; then
    exit 0
fi
if ! "$venv/bin/python" -m pip install --progress-bar off "${wanted[@]}" >>"$log" 2>&1; then
    grep -v '^WARNING' "$log" | tail -n 20 >&2
    echo "the packages could not be installed; the whole story is in $log" >&2
    exit 1
fi

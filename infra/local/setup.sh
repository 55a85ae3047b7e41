#!/bin/sh
# Makes var/venv: a virtual environment with the locked dependencies and this tree, importable and with its command.
# Does nothing in a fraction of a second while the lock is the one installed. Uses the machine's own pip settings.
set -eu
cd "$(dirname "$0")/../.."

lock=requirements/dev.txt
venv=var/venv
installed=$venv/installed
wanted=$({ pwd; cat "$lock"; } | cksum)
if [ -f "$installed" ] && [ "$(cat "$installed")" = "$wanted" ]; then exit 0; fi

mkdir -p var
exec 9>var/setup.lock
flock 9
if [ -f "$installed" ] && [ "$(cat "$installed")" = "$wanted" ]; then exit 0; fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "Commonwatt needs Python 3.11 or later: install it, or name it with PYTHON=…" >&2
        exit 1
    fi
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        echo "$python cannot make virtual environments: install its venv module (on Debian python3-venv)" >&2
        exit 1
    fi
fi

echo "Setting up in var/, this once: downloads about 270 MB of Python packages, takes about a minute."
start=$(date +%s)
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
echo "$wanted" >"$installed"
echo "Ready after $(($(date +%s) - start)) s. The next start needs no network."

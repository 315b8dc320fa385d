#!/bin/sh
# Install a lock file and editable members into .venv: with uv where it can be had, else with pip.
set -eu
lock=$1
shift
bin=.venv/bin
[ -x "$bin/uv" ] || "$bin/python" -m pip install -q --disable-pip-version-check uv 2>/dev/null || true
if [ -x "$bin/uv" ]; then
    exec "$bin/uv" pip install -q --python "$bin/python" --no-deps -r "$lock" "$@"
fi
exec "$bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$lock" "$@"

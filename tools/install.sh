#!/bin/sh
# Install a lock file and editable members into .venv: with uv where it can be had and works, else with pip.
set -eu
lock=$1
shift
bin=.venv/bin
[ -x "$bin/uv" ] || "$bin/python" -m pip install -q --disable-pip-version-check uv 2>/dev/null || true
if [ -x "$bin/uv" ]; then
    # The certificates of the machine count too: behind a proxy of one's own, the bundled ones do not suffice.
    "$bin/uv" pip install -q --system-certs --python "$bin/python" --no-deps -r "$lock" "$@" && exit 0
    echo "uv failed; trying pip" >&2
fi
exec "$bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$lock" "$@"

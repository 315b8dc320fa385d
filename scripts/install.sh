#!/bin/sh
# Install a lock file and editable members into .venv, saying what goes on: with uv where it can be had and works, else
# with pip. What is installed is compiled at once, so that the first command is as quick as the second.
set -eu
lock=$1
shift
bin=.venv/bin
count=$(grep -c '==' "$lock")
echo "installing $count packages of $lock into .venv; the first time this takes a minute or two ..." >&2

places() { find .venv/lib -maxdepth 3 -name '*.dist-info' 2>/dev/null | wc -l; }

# Say every few seconds how far it is, until the parent of this loop ends or kills it. Packages come into place together,
# once all are fetched.
tell() {
    begun=$(date +%s)
    before=$(places)
    while sleep 5 && kill -0 $$ 2>/dev/null; do
        found=$(places)
        what="fetching"
        [ "$found" -eq "$before" ] || what="$found packages are in place, compiling them"
        echo "... $(($(date +%s) - begun)) s, $what" >&2
    done
}
[ -x "$bin/uv" ] || "$bin/python" -m pip install -q --disable-pip-version-check uv 2>/dev/null || true
tell &
teller=$!
trap 'kill $teller 2>/dev/null || true' EXIT

# The certificates of the machine count too: behind a proxy of one's own, the bundled ones do not suffice.
install() {
    if [ -x "$bin/uv" ]; then
        "$bin/uv" pip install -q --system-certs --compile-bytecode --python "$bin/python" --no-deps "$@" && return
        echo "uv failed; trying pip" >&2
    fi
    "$bin/python" -m pip install -q --disable-pip-version-check --no-deps "$@"
}

# What is fetched must be what was locked. Editable members have no hash, so they come in a call of their own.
install --require-hashes -r "$lock"
[ $# -eq 0 ] || install "$@"
"$bin/python" -m compileall -q libs/*/src services/*/src cli/src || true

#!/bin/sh
# Say in one line why a Python cannot make .venv, before anything is made with it; a .venv that is there must fit as well.
set -u
python=${1:-python3}
[ ! -x .venv/bin/python ] || python=.venv/bin/python

refuse() {
    echo "error: $1; say which Python to take: make demo PYTHON=python3.12" >&2
    exit 1
}

command -v "$python" > /dev/null 2>&1 || refuse "Python 3.11 or newer is needed, and there is no $python"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null) || refuse "$python does not run"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    [ "$python" != .venv/bin/python ] || refuse "Python 3.11 or newer is needed, and .venv has $version: run make clean"
    refuse "Python 3.11 or newer is needed, and $python is $version"
}
[ "$python" = .venv/bin/python ] || "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    refuse "$python has no venv (on Debian and Ubuntu: apt install python3-venv)"

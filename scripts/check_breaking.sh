#!/bin/sh
# Fail when a contract breaks the one of the last release (or of the main branch where nothing was released yet).
set -eu
base=$(git describe --tags --abbrev=0 2> /dev/null || git rev-parse --verify -q origin/main || git rev-parse --verify -q main || true)
if [ -z "$base" ] || ! git cat-file -e "$base:buf.yaml" 2> /dev/null; then
    echo "no earlier contract to compare with"
    exit 0
fi
buf breaking --against ".git#ref=$base"

#!/bin/sh
# Fail when the committed Python differs from what the contracts generate.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sed "s#out: libs/protos/src#out: $scratch#" buf.gen.yaml > "$scratch/buf.gen.yaml"
buf generate --template "$scratch/buf.gen.yaml" 2> /dev/null
rm "$scratch/buf.gen.yaml"
find "$scratch" -name '__pycache__' -prune -exec rm -rf {} +
if ! diff -rq --exclude=__pycache__ "$scratch" libs/protos/src; then
    echo "generated code differs from the contracts: run 'make gen' and commit the result" >&2
    exit 1
fi

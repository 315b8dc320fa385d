#!/bin/sh
# Fail when the committed Python differs from what the contracts generate.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
protos=libs/protos/src errors=libs/common/src
sed -e "s#out: $protos#out: $scratch/$protos#" -e "s#out: $errors#out: $scratch/$errors#" buf.gen.yaml > "$scratch/buf.gen.yaml"
buf generate --template "$scratch/buf.gen.yaml" 2> /dev/null
module=$errors/letta_common/errors.py
if ! diff -rq --exclude=__pycache__ "$scratch/$protos" $protos || ! diff -q "$scratch/$module" $module; then
    echo "generated code differs from the contracts: run 'make gen' and commit the result" >&2
    exit 1
fi

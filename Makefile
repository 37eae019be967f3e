# Needs Python 3.11 or newer and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Only errors: pip also warns about every index of the machine that lacks a package.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
SOURCES := retrieval pipelines tests benchmarks examples docs
# Test processes; 0 runs all tests in one.
WORKERS ?= auto
# BEIR folders for make bench.
COLLECTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench docs clean

help:
	@echo "make demo     index and search a small corpus"
	@echo "make test     check, then run the tests"
	@echo "make check    format, lint and types, nothing is changed"
	@echo "make format   format and mend what can be mended"
	@echo "make bench    run the benchmarks on COLLECTIONS='BEIR folders'"
	@echo "make docs     build the documentation into build/site"
	@echo "make clean    remove .venv, caches and build results"

demo: $(VENV)/.stamp-runtime
	@$(BIN)/retrieval demo

test: check
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile

check: $(VENV)/.stamp-dev
	@$(BIN)/ruff format --check --output-format concise $(SOURCES) || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise $(SOURCES)
	@$(BIN)/mypy

format: $(VENV)/.stamp-dev
	@$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.stamp-dev
	@test -n "$(COLLECTIONS)" || { echo "name BEIR folders: make bench COLLECTIONS='path/to/scifact …'"; exit 1; }
	@$(BIN)/python -m benchmarks $(COLLECTIONS)

docs: $(VENV)/.stamp-dev
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs -d build/site-trees . build/site
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON): $$($(PYTHON) --version 2>/dev/null || echo not found), but Python 3.11 or newer is needed;" \
			"name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.stamp-runtime: pyproject.toml constraints.txt | $(VENV)/.stamp-python
	@echo "installing the project into $(VENV) (minutes the first time)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(VENV)/.stamp-python
	@echo "installing the project and its development tools into $(VENV) (minutes the first time)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.stamp-runtime

# Needs Python 3.11 or newer and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Only errors: pip also warns about every index of the machine that lacks a package.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
SOURCES := retrieval pipelines tests benchmarks examples docs
# Test processes; 0 runs all tests in one.
WORKERS ?= auto
# For make bench: a BEIR folder, or a folder with beir/NAME/ and pairs/*.jsonl.gz; without it the documentation of Python.
BENCH_DATA ?=
BENCH_OUT ?= build/bench/results
BENCH_OPTIONS ?=
PEERS := build/peers
# Extras of the container image, which requirements-lean.lock covers.
LOCKED_EXTRAS := serve tracing
LOCK_TOOLS := build/lock-tools

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench peers docs lock sbom audit clean

help:
	@echo "make demo     index and search a small corpus"
	@echo "make test     check, then run the tests"
	@echo "make check    format, lint and types, nothing is changed"
	@echo "make format   format and mend what can be mended"
	@echo "make bench    measure speed beside other libraries, on BENCH_DATA=folder or Python's own documentation"
	@echo "make peers    only install those libraries, into $(PEERS)"
	@echo "make docs     build the documentation into build/site"
	@echo "make lock     resolve requirements-lean.lock anew, with hashes"
	@echo "make sbom     install the lock by itself and list it in build/sbom.cdx.json"
	@echo "make audit    look the lock up in the public list of vulnerabilities"
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

bench: $(VENV)/.stamp-dev $(PEERS)/.stamp
	@$(BIN)/python -m benchmarks.bench --out '$(BENCH_OUT)' $(if $(BENCH_DATA),--data '$(BENCH_DATA)') $(BENCH_OPTIONS)

peers: $(PEERS)/.stamp

docs: $(VENV)/.stamp-dev
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs -d build/site-trees . build/site
	@echo "build/site/index.html"

lock: $(LOCK_TOOLS)/.stamp
	@$(PYTHON) -c "import sys, tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(line for name in sys.argv[1:] for line in extras[name]), sep='\n')" $(LOCKED_EXTRAS) > build/locked-extras.txt
	@CUSTOM_COMPILE_COMMAND='make lock' $(LOCK_TOOLS)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options --no-annotate \
		--output-file requirements-lean.lock requirements-lean.txt build/locked-extras.txt

sbom: $(LOCK_TOOLS)/.stamp
	@$(PYTHON) -m venv --clear build/locked
	@build/locked/bin/python -m pip --disable-pip-version-check install -qq --require-hashes -r requirements-lean.lock
	@$(LOCK_TOOLS)/bin/cyclonedx-py environment --output-reproducible --output-file build/sbom.cdx.json build/locked/bin/python
	@echo "build/sbom.cdx.json"

audit: $(LOCK_TOOLS)/.stamp
	@$(LOCK_TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-lean.lock

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

$(PEERS)/.stamp: benchmarks/peers-requirements.txt constraints.txt | $(VENV)/.stamp-python
	@echo "installing the libraries to measure against into $(PEERS) (minutes the first time)"
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install -qq -c constraints.txt -r benchmarks/peers-requirements.txt
	@touch $@

$(LOCK_TOOLS)/.stamp: | $(VENV)/.stamp-python
	@mkdir -p build
	@$(PYTHON) -m venv --clear $(LOCK_TOOLS)
	@$(LOCK_TOOLS)/bin/python -m pip --disable-pip-version-check install -qq pip-tools pip-audit cyclonedx-bom
	@touch $@

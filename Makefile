# Needs nothing but make and python3 (3.11 to 3.13) with venv. Every target sets up what it needs, once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench parity clean

help:             ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## / - /'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "mirada needs Python 3.11 to 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -c 'import platform, sys; sys.exit(platform.system() == "Darwin" and platform.machine() == "x86_64" and "PyTorch has no builds for Intel Macs any more, nor for an Intel Python: use one for Apple silicon, make PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || { rm -f $(BIN)/python*; exit 1; }

$(VENV)/demo.done: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/dev.done: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/demo.done

$(VENV)/bench.done: $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

demo: $(VENV)/demo.done    ## train a vision transformer on real drawings, in minutes, offline
	$(BIN)/mirada demo
	@echo "The command mirada is in $(BIN); to call it by its name: . $(BIN)/activate"

test: $(VENV)/dev.done     ## run every test, one process and one thread for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto $(PYTEST_ARGS)

check: $(VENV)/dev.done    ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench.done  ## measure against the peers; needs an otherwise idle machine
	$(BIN)/python benchmarks/throughput.py

parity: $(VENV)/dev.done   ## measure published checkpoints against their libraries: docs/checkpoints.md
	$(BIN)/python benchmarks/parity.py

clean:            ## remove the virtual environment and caches
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

# Two commands for a newcomer: `make quickstart` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Processes of `make test`, a core each.
JOBS   ?= 2

.PHONY: help install quickstart test check format clean

help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -e 's/:.*##/\t/'

install: $(STAMP) ## make .venv with the exact CPU set (3.8 GB)

$(STAMP): requirements/cpu.lock requirements/sglang-cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make install needs Python 3.11 (the lock file is for it): make install PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and by itself: with it installed, nothing below asks for another build of it
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps --requirement requirements/cpu.lock
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/sglang --requirement requirements/sglang-cpu.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

quickstart: install ## a whole study on this machine; prints where its report is
	$(BIN)/python -m prox_hpc.launch

test: install ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder

check: install ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove outputs (not .venv)
	rm -rf outputs build *.egg-info

# `make train` and `make test` do everything on a machine that has git, make and Python 3.11 or newer.
# What is installed changes when pyproject.toml or constraints.txt do, and only then.

# The first Python that is new enough; another one: make train PYTHON=python3.12
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info < (3, 11) or print("$(p)")' 2>/dev/null)) python3)
VENV ?= .venv
CACHE := $(VENV)/cache
READY := $(VENV)/.installed

# Added to the command: make train ARGS="experiment=softmax_digits optimizer.lr=0.01"
ARGS ?=
# Added to pip install, for example another index of packages
PIP_OPTIONS ?=

# Tools keep what they download and remember beside the environment, not in the home folder.
export MPLCONFIGDIR ?= $(abspath $(CACHE))/matplotlib
export PYRIGHT_PYTHON_CACHE_DIR ?= $(abspath $(CACHE))/pyright
export npm_config_cache ?= $(abspath $(CACHE))/npm

.DEFAULT_GOAL := help
.PHONY: help setup train test slow lint style format types claims clean

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1	\2/' | expand -t 14
	@echo 'ARGS="…" is added to the command: make train ARGS="experiment=softmax_digits"'

setup: $(READY)  ## make the virtual environment .venv and install the project into it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)"; \
		echo "name another one: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing"; \
		echo "on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[dev]" $(PIP_OPTIONS)
	@touch $@

train: $(READY)  ## train the default experiment, or what ARGS names
	$(VENV)/bin/dl-course train $(ARGS)

test: $(READY)  ## run the tests
	$(VENV)/bin/python -m pytest $(ARGS)

slow: $(READY)  ## run the tests that take longer
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

lint: style format types  ## check style and types

style: $(READY)
	$(VENV)/bin/ruff check .

format: $(READY)
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/pyright

claims: $(READY)  ## run the executable claims of the lectures and judge them
	$(VENV)/bin/python -m experiments $(ARGS)

clean:  ## remove caches and builds; runs/ and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

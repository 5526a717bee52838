# Two commands matter: `make reproduce` and `make test`. Both need Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help env lint types unit test reproduce lab lock readme clean

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

env: $(VENV)/.installed  ## create the environment

lint: env  ## ruff
	$(BIN)/ruff check .

types: env  ## mypy --strict
	$(BIN)/mypy

unit: env  ## the tests
	$(BIN)/pytest

test: lint types unit  ## everything that CI runs

# Two commands matter: `make reproduce` and `make test`. Both need Python 3.11 (3.12 and 3.13 work) and make, nothing
# else. pip takes the torch wheel of the index it is given: see CONTRIBUTING.md for the small CPU wheel.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= embedded
PROFILE ?= cpu
ROOT   ?=
SEEDS  ?=

.PHONY: help env reproduce test lint types unit smoke lab readme docs lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), sys.version' || \
		{ echo "found $$($(PYTHON) --version); expected Python 3.11 to 3.13: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

env: $(VENV)/.installed  ## create the environment in .venv

reproduce: env  ## run all notebooks headless and write reports/<PROFILE>-<DATA>/index.html
	$(BIN)/simgan reproduce --data $(DATA) --profile $(PROFILE) $(if $(ROOT),--data-root "$(ROOT)") \
		$(if $(SEEDS),--seeds $(SEEDS))

test: lint types unit smoke  ## lint, types, tests, smoke run of all notebooks

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb

types: env
	$(BIN)/mypy

unit: env
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto -m "not smoke"

smoke: env  ## the smoke run of all notebooks alone
	$(BIN)/pytest -q -m smoke

lab: env  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

readme: env  ## fill the numbers of README and docs from reports/ and settings
	$(BIN)/python -m simgan_core.readme

docs: env  ## write the generated pages
	$(BIN)/python -m simgan_core.deviations

lock: env  ## write requirements.lock from the environment
	{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed -E 's/\+cpu|\+cu[0-9]+//'; } > requirements.lock.new && mv requirements.lock.new requirements.lock

clean:  ## remove the environment and caches; runs/ and reports/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

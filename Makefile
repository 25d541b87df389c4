# make help lists the targets. Everything runs from .venv, which `setup` makes.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CONFIG ?= experiments/quickstart.toml
ifndef RUN
RUN := runs/quickstart-$(shell date +%Y%m%d-%H%M%S)
endif

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all faults check types coverage format docs bench results lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.installed ## make .venv from requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("metarl needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@echo "setup 1 of 4: a Python environment in .venv (a few seconds)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setup 2 of 4: $$(grep '^torch==' requirements.lock), the largest package (half a minute or more)"
	@$(PIP) $$(grep '^torch==' requirements.lock)
	@echo "setup 3 of 4: $$(grep -c == requirements.lock) packages of requirements.lock (half a minute or more)"
	@$(PIP) -r requirements.lock
	@echo "setup 4 of 4: metarl itself"
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

train: setup ## meta-train MAML, evaluate it on held-out tasks, film it adapting: 5 minutes
	$(BIN)/metarl train --config "$(CONFIG)" --output "$(RUN)"
	$(BIN)/metarl eval "$(RUN)"
	-$(BIN)/metarl video "$(RUN)" --grid 2 --output videos/quickstart.mp4

test: setup ## lint, types and tests, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: check ## everything that is tested: slow tests, more robots on Warp, every point of the tests of faults
	METARL_FULL=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m ''

faults: setup ## every point of the tests of faults (docs/reliability.md), with the figures: up to 15 minutes
	METARL_FULL=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/faults tests/sim/test_mjcf.py tests/agents/test_divergence.py

check: setup ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

types: setup ## types of tests, examples, experiments and benchmarks too
	$(BIN)/mypy --config-file tests/mypy.ini

coverage: setup ## the tests, and which lines of the code they run
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov=metarl --cov=envs --cov=agents --cov-report=term:skip-covered

format: setup ## format the code and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## the documentation as HTML in docs/_build, offline
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

bench: setup ## speed of environments and training, as ratios to bare physics
	$(BIN)/metarl bench

results: setup ## redraw the tables and figures of README and experiments/results from what is recorded there
	$(BIN)/python experiments/record.py

lock: setup ## write requirements.lock from what .venv holds
	(head -1 requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable | grep -viE '^(pip|metarl)==' | sed 's/+cpu//') > requirements.lock.new
	mv requirements.lock.new requirements.lock

# `make help` lists the targets. Everything runs in .venv, which `make setup` builds from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
DATASET ?= digits
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup train digits audit collect test test-slow check format data bench clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## Build the environment alone, in .venv

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; set PYTHON=python3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[experiments,sweeps,test,dev]'
	@touch $@

train: $(STAMP) ## Train; settings go in ARGS, as in: make train ARGS="homeostasis=none seed=1"
	$(BIN)/python -m experiments.train $(ARGS)

digits: $(STAMP) ## The default job with and without homeostasis, three seeds: table and figure under docs/
	$(BIN)/python -m experiments.paper.digits

audit: $(STAMP) ## Split the bias of a gradient estimate by its causes; ARGS as for train
	$(BIN)/python -m experiments.audit $(ARGS)

test: $(STAMP) ## Run the tests, in a few minutes
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(STAMP) ## Run the slow tests: trainings that reach a range of accuracies
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(STAMP) ## Lint, format check, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

collect: $(STAMP) ## Gather run folders into a table: make collect ARGS="outputs --by estimator"
	$(BIN)/python -m experiments.collect $(or $(ARGS),outputs)

data: $(STAMP) ## Fetch and verify a data set: make data DATASET=cifar10 [ROOT=folder]
	$(BIN)/python -m experiments.data $(DATASET) $(if $(ROOT),--root "$(ROOT)")

bench: $(STAMP) ## Measure the throughput of batches and augmentation
	$(BIN)/python -m experiments.bench_data

clean: ## Remove the environment and caches, not the results
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info

# `make help` lists the targets. Everything runs in .venv, which `make setup` builds from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
DATASET ?= digits
SCALE ?= cpu
DATA_LABEL ?=
STUDY = --scale $(SCALE) $(if $(DATA_LABEL),--data-label "$(DATA_LABEL)") $(ARGS)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup train digits table1 table2 ablations best weak-feedback figures spice substrate audit collect test test-slow check format data bench bench-gpu bench-data clean

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

table1: $(STAMP) ## Every estimator on Fashion-MNIST: make table1 SCALE=quick|cpu|full
	$(BIN)/python -m experiments.paper.table1 $(STUDY)

table2: $(STAMP) ## The convolutional network on CIFAR and ImageNet 32x32; DATA_LABEL="..." names a copy of CIFAR-10
	$(BIN)/python -m experiments.paper.table2 $(STUDY)

figures: $(STAMP) ## All figures of the studies under docs/results/figures; SCALE as above, DATA_LABEL names CIFAR-10
	$(BIN)/python -m experiments.paper.figures $(STUDY)

ablations: $(STAMP) ## Homeostasis part by part: terms, coefficients, draws, RBP; SCALE as above
	$(BIN)/python -m experiments.paper.ablations $(STUDY)

best: $(STAMP) ## How far finite nudges alone go on Fashion-MNIST; SCALE as above
	$(BIN)/python -m experiments.paper.best $(STUDY)

weak-feedback: $(STAMP) ## Weak feedback by depth, and on CIFAR-10; SCALE and DATA_LABEL as above
	$(BIN)/python -m experiments.paper.weak_feedback $(STUDY)

spice: $(STAMP) ## Compare circuits with ngspice: fixed points, error vectors, noise, gradients, oscillating nudge
	$(BIN)/python -m experiments.spice.compare $(ARGS)

substrate: $(STAMP) ## Studies of imperfect devices: mismatch by class, noise, converters, offsets, settling, writes
	$(BIN)/python -m experiments.substrate.mismatch $(ARGS)
	$(BIN)/python -m experiments.substrate.mismatch --data fashion_mnist $(ARGS)
	$(BIN)/python -m experiments.substrate.readings
	$(BIN)/python -m experiments.substrate.oscillation
	$(BIN)/python -m experiments.substrate.writes

audit: $(STAMP) ## Split the bias of a gradient estimate by its causes; ARGS as for train
	$(BIN)/python -m experiments.audit $(ARGS)

test: $(STAMP) ## Run the tests, in a few minutes
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

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

bench: $(STAMP) ## Time of training steps over their floor, with their errors, in ten minutes; ARGS="--quick": one
	$(BIN)/python -m experiments.bench $(ARGS)

bench-gpu: $(STAMP) ## The same question on a GPU: seconds an epoch, share of the matrix ceiling, memory
	$(BIN)/python -m experiments.bench.gpu $(ARGS)

bench-data: $(STAMP) ## Measure the throughput of batches and augmentation
	$(BIN)/python -m experiments.bench_data

clean: ## Remove the environment and caches, not the results
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info

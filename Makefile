# `make help` lists the targets. Everything runs in .venv, which `make setup` builds from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
DATASET ?= digits
SCALE ?= cpu
EXTRAS ?=
RUN := $(VENV)/.run
DEVELOP := $(VENV)/.develop
DOCS := $(VENV)/.docs
STUDIES := ablations angles bias_split calibrated cifar10 conv depth device_readings devices digits homeostasis learning_bias limit_cycles loop low_bit mismatch_digits nudge_error oscillation pareto phases presets price relaxation_steps residual rivals signatures spice table1 table2 tasks_in_turns writes
# uv where there is one: it builds the same environment in a tenth of the time.
UV := $(shell command -v uv 2>/dev/null)
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)

.DEFAULT_GOAL := help
.PHONY: help setup develop train study studies figures substrate $(STUDIES) audit collect test test-bounded test-slow docs check format data build bench bench-gpu bench-data zoo clean

help: ## List the targets
	@grep -hE '^[a-z0-9 _-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(RUN) ## Build the environment that running needs; a graphics card's by EXTRAS=cuda12 or cuda13

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; set PYTHON=python3.11 or newer"; exit 1; }
	$(if $(UV),$(UV) venv --quiet --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

$(RUN): pyproject.toml $(VENV)/pyvenv.cfg
	$(INSTALL) -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@touch $@

develop: $(DEVELOP) ## Add what tests and checks need: pytest, ruff, pyright, every optional logger that has no server

$(DEVELOP): $(RUN)
	$(INSTALL) -e '.[dev]'
	@touch $@

$(DOCS): $(RUN)
	$(INSTALL) -e '.[docs]'
	@touch $@

train: $(RUN) ## Train; settings go in ARGS, as in: make train ARGS="homeostasis=none seed=1"
	$(BIN)/eqprop train $(ARGS)

study: $(RUN) ## Run studies by name: make study ARGS="table1 scale=quick"
	$(BIN)/eqprop study $(ARGS)

$(filter-out table1 table2,$(STUDIES)): $(RUN)
	$(BIN)/eqprop study $@ scale=$(SCALE) $(ARGS)

table1: $(RUN) ## Every estimator on Fashion-MNIST: make table1 SCALE=quick|cpu|full
	$(BIN)/eqprop study table1 scale=$(SCALE) $(ARGS)

table2: $(RUN) ## The convolutional network on CIFAR and ImageNet 32x32; ARGS='label.cifar10="..."' names a copy
	$(BIN)/eqprop study table2 scale=$(SCALE) $(ARGS)

figures: $(RUN) ## The figures of nudges, angles, homeostasis, loops, convolutions, biases and settling
	$(BIN)/eqprop study nudge_error angles homeostasis loop conv bias_split relaxation_steps scale=$(SCALE) $(ARGS)

substrate: $(RUN) ## Studies of imperfect devices: mismatch by class, noise, converters, offsets, settling, weak feedback, writes
	$(BIN)/eqprop study mismatch_digits device_readings oscillation price writes scale=$(SCALE) $(ARGS)

studies: $(RUN) ## All studies, one after the other, in hours of two cores
	$(BIN)/eqprop study $(STUDIES) scale=$(SCALE) $(ARGS)

audit: $(RUN) ## Split the bias of a gradient estimate by its causes; ARGS as for train
	$(BIN)/eqprop audit $(ARGS)

collect: $(RUN) ## Gather run folders into a table: make collect ARGS="outputs --by estimator"
	$(BIN)/eqprop collect $(or $(ARGS),outputs)

data: $(RUN) ## Fetch and verify a data set: make data DATASET=cifar10 [ROOT=folder]
	$(BIN)/eqprop data $(DATASET) $(if $(ROOT),--root "$(ROOT)")

test: $(DEVELOP) ## Run the tests, in a few minutes
	$(BIN)/python -m pytest -m "not slow and not bounded" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-bounded: $(DEVELOP) ## Run trainings of a minute or two that must reach an accuracy, and kills that change nothing
	XLA_FLAGS= $(BIN)/python -m pytest -m bounded -n auto --maxprocesses 2 --dist loadfile $(ARGS)

docs: $(DOCS) ## Build the site into docs/_build/html, with all notebooks executed; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

test-slow: $(DEVELOP) ## Run the slow tests: trainings that reach a range of accuracies
	XLA_FLAGS= $(BIN)/python -m pytest -m "slow or bounded" $(ARGS)

check: $(DEVELOP) ## Lint, format check, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

format: $(DEVELOP) ## Format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

build: $(DEVELOP) ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build --quiet

bench: $(RUN) ## Time of training steps over their floor, with their errors, in ten minutes; ARGS="--quick": one
	$(BIN)/python -m experiments.bench $(ARGS)

bench-gpu: $(RUN) ## The same question on a GPU: seconds an epoch, share of the matrix ceiling, memory
	$(BIN)/python -m experiments.bench.gpu $(ARGS)

bench-data: $(RUN) ## Measure the throughput of batches and augmentation
	$(BIN)/python -m experiments.bench_data

zoo: $(RUN) ## Train the small networks that are shipped with the package; Fashion-MNIST has to be at hand
	$(BIN)/python -m experiments.zoo $(ARGS)

clean: ## Remove the environment and caches, not the results
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info

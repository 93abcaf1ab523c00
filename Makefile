# Every target makes the virtual environment when it is missing.
PYTHON ?= python3
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
# Several processes share the cores: one thread each is faster than all threads in each.
export OMP_NUM_THREADS ?= 1
# Ray and MLflow are some 20 processes: each would compile its packages anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu lint clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: .venv/.ok ## The whole path: data, fit, register, serve, request, judge; ends with a report
	$(BIN)/fastgan-aug demo

test: .venv/.ok ## The tests that run on two cores in minutes
	$(BIN)/pytest

test-slow: .venv/.ok ## The tests that take many minutes
	$(BIN)/pytest -m 'slow and not gpu'

test-gpu: .venv/.ok ## The tests that need a CUDA device
	$(BIN)/pytest -m gpu

lint: .venv/.ok ## Style and types: ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove the virtual environment and all caches; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.venv/.ok: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile -q -c constraints.txt -e '.[dev]'
	@touch $@

# Each target makes .venv by itself when it is missing or older than the files it is made from.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow test-cluster check lint types clean

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

demo: .venv/.stamp
	$(BIN)/raywf demo

test: .venv/.stamp
	$(BIN)/python -m pytest -q -p xdist.plugin -n 2 --dist worksteal tests/unit
	$(BIN)/python -m pytest -q --doctest-modules raywf README.md
	$(BIN)/python -m pytest -q -m "not slow" --durations=15 tests/ray
	$(BIN)/python -m pytest -q -m "not slow" --durations=15 tests/cluster tests/e2e  # no cluster of others beside

test-slow: .venv/.stamp
	$(BIN)/python -m pytest -m slow

test-cluster: .venv/.stamp
	$(BIN)/python -m pytest -q -rP --durations=15 tests/cluster

lint: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.stamp
	$(BIN)/mypy

check: lint types test

bench-%: .venv/.stamp
	$(BIN)/python benchmarks/$(subst -,_,$*).py

clean:
	rm -rf .venv .raywf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist demo-out
	find . -name __pycache__ -prune -exec rm -rf {} +

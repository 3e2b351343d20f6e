# `make quickstart` and `make test` need Python 3.11 or newer, a C++ compiler and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help quickstart test test-slow lint bench clean

help:
	@echo "make quickstart   set up .venv and run lmwright quickstart (writes runs/quickstart/report.html)"
	@echo "make test         set up .venv and run every test but the slow ones"
	@echo "make test-slow    run the slow tests and the planted faults"
	@echo "make lint         ruff, mypy --strict, import layers"
	@echo "make bench        run the benchmarks and rewrite the README's tables"
	@echo "make clean        remove .venv and caches (runs/ is kept)"

$(VENV)/run.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[verify]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: $(VENV)/run.stamp
	$(BIN)/lmwright quickstart $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow $(ARGS)
	$(BIN)/python scripts/planted_faults.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

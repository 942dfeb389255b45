# Three commands: `make compare`, `make test` and, the slow tests too, `make check`. All set up .venv first. PYTHON=python3.12 picks another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
export MMFUSE_DATA_DIR ?= $(abspath $(wildcard ../shared/data))

.PHONY: compare test check lint clean

compare: $(STAMP)
	$(BIN)/mmfuse compare $(ARGS)

# A file of tests goes to one worker, which then makes what they share once.
test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "" $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# `make .venv` is this target by its everyday name. The stamp is written last: a broken install is retried.
$(VENV): $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mmfuse needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache

# One virtual environment, one lock, one name for each thing a developer does. `make` lists them.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=# which Python makes the environment; empty: the newest of 3.11 to 3.13
INSTALLED := $(VENV)/.installed

# every file here proves a claim and refreshes its own section of benchmarks/RESULTS.md
CLAIMS := $(filter-out harness plain_keras,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: help demo test unit lint format lock bench clean

help:  ## list these targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED)  ## train on pictures drawn here, from and to a bucket on this machine: under 3 minutes
	$(BIN)/python scripts/fetch_weights.py
	$(BIN)/finetune demo

test: lint  ## the whole test suite, as CI runs it
	$(BIN)/python -m pytest --cov

unit: $(INSTALLED)  ## the fast tests alone
	$(BIN)/python -m pytest tests/unit

lint: $(INSTALLED)  ## style, types, import contracts, locks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/unit/test_project.py

format: $(INSTALLED)  ## mend the style where that needs no thought
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Pins stay as they are unless ARGS=--upgrade or ARGS='--upgrade-package NAME'.
# note: wheels only and one version for all Pythons, so that an installation needs no compiler and any two are alike
lock: $(INSTALLED)  ## lock what pyproject.toml asks for
	for extra in dev cpu gpu; do \
	    $(BIN)/uv pip compile pyproject.toml --extra $$extra --output-file requirements/$$extra.txt --quiet \
	        --universal --python-version 3.11 --fork-strategy fewest --only-binary :all: \
	        --generate-hashes --no-emit-index-url --no-header $(ARGS) || exit; \
	done

bench: $(INSTALLED)  ## measure every claim (or CLAIMS="one other") and write benchmarks/RESULTS.md
	for claim in $(CLAIMS); do $(BIN)/python benchmarks/$$claim.py || exit; done

clean:  ## remove all that was made here
	rm -rf $(VENV) build dist finetune-demo htmlcov .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Made anew when the lock changes, so that nothing stays which the lock does not name.
$(VENV)/.locked: requirements/dev.txt
	python="$$(sh scripts/find_python.sh $(PYTHON))" && "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	touch $@

$(INSTALLED): $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	touch $@

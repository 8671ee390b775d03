# One virtual environment, one lock, one target for each task of a developer. `make` lists them.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=# the Python of the virtual environment; empty: the newest of 3.11 to 3.13
INSTALLED := $(VENV)/.installed
COMMA := ,

# Tests start Python hundreds of times; without cached bytecode, each start compiles the project again.
unexport PYTHONDONTWRITEBYTECODE

# each of these benchmarks updates its own section of benchmarks/RESULTS.md
# note: without precision, which takes hours on a CPU without instructions for half precision, and without presets, which
# needs pictures that are not drawn
CLAIMS := $(filter-out harness attempts digests plain_keras plain_torch terminal gpu_check precision presets,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: help demo test coverage prerequisites unit lint style format lock bench gpu-check screens soak mutants clean generated cluster image image-gpu build-image

help:  ## list these targets
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED)  ## train on drawn pictures, from and to an emulated bucket on this machine: about 3 minutes
	$(BIN)/python scripts/fetch_weights.py
	$(BIN)/finetune demo

# A process more than there are cores, since many of these tests wait: for a process, a bucket, a browser.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PARTS := tests/unit tests/integration tests/chart tests/fuzz

test: prerequisites style  ## the whole test suite, as CI runs it
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile $(PARTS)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m 'not alone' \
	    $(addprefix --ignore ,$(PARTS))
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/replicas
	$(BIN)/python -m pytest -m alone $(addprefix --ignore ,$(PARTS))

# note: CI does without: calls inside of TensorFlow are traced, too, which takes minutes
coverage: $(INSTALLED)  ## branch coverage by the unit, integration, chart and fuzz tests: at least 90 %
	$(BIN)/python -m pytest --cov --numprocesses $(PROCESSES) --dist loadfile $(PARTS)

# note: scripts/mutants.py runs its unit tier with the same arguments
FAST := -m 'not slow' --hypothesis-profile fast

prerequisites: $(INSTALLED)  ## report what this machine lacks for the whole test suite
	$(BIN)/python scripts/prerequisites.py

unit: $(INSTALLED)  ## only the fast tests: tests/unit without those marked slow
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(FAST) tests/unit

lint: style  ## style, types, import contracts, locks
	$(BIN)/python -m pytest -q tests/unit/test_project.py

style: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)  ## fix the style where ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Pins stay as they are unless ARGS=--upgrade or ARGS='--upgrade-package NAME'.
# note: wheels only and one version for all Pythons, so that no installation needs a compiler and all are alike
# note: onnx is installed beside cpu or gpu, so that what they share must have the same versions
# note: with the extras (`coverage[toml]==…`): without them pip before 24 installs the newest version, not the pinned one
lock: $(INSTALLED)  ## lock the dependencies of pyproject.toml
	for lock in 'dev pyproject.toml --extra dev' 'cpu pyproject.toml --extra cpu' 'gpu pyproject.toml --extra gpu' \
	    'onnx pyproject.toml --extra onnx --constraints requirements/cpu.txt' 'build --group build' 'proxy --group proxy'; do \
	    $(BIN)/uv pip compile $${lock#* } --output-file requirements/$${lock%% *}.txt --quiet \
	        --universal --python-version 3.11 --fork-strategy fewest --only-binary :all: \
	        --generate-hashes --no-strip-extras --no-emit-index-url --no-header $(ARGS) || exit; \
	done

bench: $(INSTALLED)  ## measure every claim (or CLAIMS="one other") and write benchmarks/RESULTS.md
	for claim in $(CLAIMS); do $(BIN)/python benchmarks/$$claim.py || exit; done

# note: in another virtual environment, since the default one has TensorFlow for the CPU
GPU_VENV := $(VENV)/gpu

gpu-check: $(GPU_VENV)/.locked  ## measure the recipe on the first GPU here, in every precision (ARGS=--small: on the CPU)
	$(GPU_VENV)/bin/python scripts/fetch_weights.py
	PYTHONPATH=. $(GPU_VENV)/bin/python benchmarks/gpu_check.py $(ARGS)

$(GPU_VENV)/.locked: requirements/gpu.txt
	python="$$(sh scripts/find_python.sh $(PYTHON))" && "$$python" -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	touch $@

FUZZ_SECONDS ?= 900# for each target of fuzz

HELM ?= helm# the program that renders the manifests

generated: $(INSTALLED)  ## write the files that are generated from the code: tables, helm/, k8s/ (HELM=/path/to/helm)
	$(BIN)/python scripts/generate.py --helm $(HELM)

cluster: $(INSTALLED)  ## the tests on a Kubernetes cluster: that of KUBECONFIG, or one that they start
	$(BIN)/python -m pytest tests/cluster

# note: Debian's client builds with BuildKit; another one on the path may not
DOCKER ?= $(firstword $(wildcard /usr/bin/docker) docker)# the client that builds the images
CA_BUNDLE ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)# certificates for the build's downloads; no layer contains them

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' job/__init__.py)# the tag that the chart asks for

image: ACCELERATOR := cpu
image: build-image  ## build finetune:cpu, also tagged with the version (ARGS='--build-arg BASE_IMAGE=… --tag …')

image-gpu: ACCELERATOR := gpu
image-gpu: build-image  ## build finetune:gpu, also tagged with the version

build-image:
	DOCKER_BUILDKIT=1 $(DOCKER) build --tag finetune:$(ACCELERATOR) --tag finetune:$(VERSION) \
	    --build-arg ACCELERATOR=$(ACCELERATOR) --build-arg VERSION=$(VERSION) \
	    $(addprefix --secret id=ca$(COMMA)src=,$(CA_BUNDLE)) \
	    --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" \
	    --build-arg SOURCE="$$(git config remote.origin.url | sed 's#//.*@#//#')" $(ARGS) .

screens: $(INSTALLED)  ## take the pictures of the terminal in docs/screens/, from a run of the demo
	PYTHONPATH=benchmarks $(BIN)/python scripts/screens.py

soak: $(INSTALLED)  ## kill runs a hundred times at random moments; every one must end in the same bits
	PYTHONPATH=benchmarks $(BIN)/python scripts/soak.py --kills 100

fuzz: $(INSTALLED)  ## give the readers of settings, tables and images damaged files for 15 minutes each (FUZZ_SECONDS=900)
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest --numprocesses auto tests/fuzz

mutants: $(INSTALLED)  ## plant mistakes one at a time and report which tests notice them (ARGS='NAME…': these alone)
	$(BIN)/python scripts/mutants.py $(ARGS)

clean:  ## remove all generated files that git ignores
	rm -rf $(VENV) build dist finetune-demo htmlcov .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Recreated when the lock changes, so that it contains nothing that the lock does not name.
$(VENV)/.locked: requirements/dev.txt
	python="$$(sh scripts/find_python.sh $(PYTHON))" && "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	touch $@

$(INSTALLED): $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	touch $@

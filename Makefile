# From a fresh checkout, `make demo` or `make test`: each sets up all that it needs in .venv and runs it from there.

PYTHON ?= python3
DOCKER ?= docker
IMAGE ?= rmldnn-torch
CPU_INDEX := https://download.pytorch.org/whl/cpu
CA_CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs format image image-cuda benchmark constraints clean

help: ## Show this list
	@echo 'Usage: make TARGET [PYTHON=python3.12] \'
	@echo '           [TORCH_INDEX=$(CPU_INDEX)]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(INSTALLED) ## Search, train and infer on synthetic images, in minutes
	$(RUN) rml_optimization.py demo

test: lint docs ## Lint, docs and all tests (PYTEST_ARGS='-k docker' to choose)
	$(RUN) -m pytest --cov $(PYTEST_ARGS)

lint: $(INSTALLED) ## Check style and types only
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(INSTALLED) ## Build the documentation into build/docs; a warning is an error
	$(RUN) -m sphinx -E -W --keep-going --quiet --builder html docs build/docs

format: $(INSTALLED) ## Lay out the code and mend what ruff can mend
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# The stamp is older than these files when either has changed, and then pip brings .venv up to date.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null \
	    || { echo 'make: $(PYTHON) is not installed; install Python 3.10 or newer, or name one: make PYTHON=...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo 'make: $(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info >= (3, 14))' \
	    || echo 'make: $(PYTHON) is newer than Python 3.13, the newest tried; if this fails, name another: make PYTHON=...' >&2
	@echo 'Installing into $(VENV), which takes some minutes and says nothing meanwhile ...'
	@"$(PYTHON)" -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	    -c constraints.txt -e '.[engine,test,docs,release]'
	@touch $@

# Without a TORCH_INDEX pip takes PyPI's torch, which is the CUDA build on Linux.
image: TORCH_INDEX = $(CPU_INDEX)
image: ## Build the engine's image for CPUs, rmldnn-torch:latest
	$(BUILD_IMAGE) --tag $(IMAGE):latest .

image-cuda: ## Build the engine's image for NVIDIA GPUs, rmldnn-torch:cuda
	$(BUILD_IMAGE) --tag $(IMAGE):cuda .

BUILD_IMAGE = DOCKER_BUILDKIT=1 $(DOCKER) build --build-arg TORCH_INDEX=$(TORCH_INDEX) \
    $(if $(CA_CERTIFICATES),--secret id=ca$(comma)src=$(CA_CERTIFICATES))
comma := ,

# TensorFlow wants an older h5py than ours, so the pins but torch's do not hold here.
BENCHMARK_VENV := .venv-benchmark
benchmark: ## Compare speed with PyTorch, MONAI and Keras, in half an hour
	@test -x $(BENCHMARK_VENV)/bin/python || "$(PYTHON)" -m venv $(BENCHMARK_VENV)
	@$(BENCHMARK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	    $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0 -e '.[engine]' -r benchmarks/requirements.txt
	$(BENCHMARK_VENV)/bin/python benchmarks/training_speed.py $(BENCHMARK_ARGS)

# torch stays at 2.13.0 until someone has run tests and benchmarks with another. The leading comment is kept.
constraints: $(INSTALLED) ## Renew constraints.txt with today's newest versions
	$(RUN) -m pip install --disable-pip-version-check --quiet uv
	sed -n '/^#/p' constraints.txt > constraints.tmp
	echo 'torch==2.13.0' | $(RUN) -m uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
	    --extra engine --extra test --extra docs --extra release --constraints - pyproject.toml \
	    | grep -vE "^(cffi|cuda|nvidia|pycparser|triton)|sys_platform == 'win32'" >> constraints.tmp
	mv constraints.tmp constraints.txt

clean: ## Remove .venv and what tools left; results of searches stay
	rm -rf $(VENV) $(BENCHMARK_VENV) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

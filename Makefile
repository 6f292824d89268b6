# make throughput   runs the models on a real clip and prints the paper's table beside what was measured
# make test         runs all tests, on all cores
# make gpu          on a machine with a GPU: tests, checks memory accesses and times everything; a table last
# make soak         ten thousand videos through a stream, with all that can go wrong; minutes
# make cuda-report  registers, spills, occupancy and access widths of the CUDA kernels; needs no GPU
#
# All make .venv first, if it is not current. Choices:
#   PYTHON=python3.12           the interpreter that .venv is made from
#   TORCH='torch==2.13.0'       which torch to install (default: whatever `pip install torch` brings)
#   SYSTEM_TORCH=1              use the torch that PYTHON has already
#   VENV=/path                  another place for the environment
#   ARGS='--configs ...'        further arguments of the program that the target runs

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch
ARGS ?=
PY := $(VENV)/bin/python

# CUDA kernels for the cards of this machine; where there is none, for an RTX 30 and an H100, which is enough to
# compile, inspect and emulate them. Each further architecture costs time. (pip and wheels build for all.)
CARDS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+\.[0-9]+$$' | sort -u)
ADAFOCUS_CUDA_ARCHS ?= $(or $(strip $(CARDS)),8.6 9.0)
export ADAFOCUS_CUDA_ARCHS

SOURCES := setup.py $(shell find csrc -type f)

.PHONY: all build test throughput ops-bench cuda-report gpu lint format sanitize slow soak races mutants clean
all: build

# Dependencies and the Python of both packages, once for each pyproject.toml.
$(VENV)/.installed: pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(if $(SYSTEM_TORCH),--system-site-packages) $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(if $(SYSTEM_TORCH),,$(PY) -m pip install "$(TORCH)" numpy)
	$(PY) -m pip install --quiet "setuptools>=77" ninja
	ADAFOCUS_BUILD=0 $(PY) -m pip install --quiet --no-build-isolation --editable ".[dev]"
	@touch $@

# Ninja compiles what has changed; without --force setuptools would not ask it.
BUILD_EXTENSION = PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) setup.py --quiet build_ext --inplace --force

# The extension, with all kernels.
$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(BUILD_EXTENSION)
	@touch $@ $(VENV)/.built-cpu

# The extension as far as it can run where there is no card: the CUDA kernels take most of the time to compile.
$(VENV)/.built-cpu: $(VENV)/.installed $(SOURCES)
	ADAFOCUS_CUDA=0 $(BUILD_EXTENSION)
	@touch $@

build: $(VENV)/.built

test: build
	$(PY) -m pytest --numprocesses auto --dist worksteal $(ARGS)

slow: build
	$(PY) -m pytest -m "slow or big" $(ARGS)

soak: build
	$(PY) -m pytest -m slow tests/engine/test_soak.py $(ARGS)

# The conformance suite on the CUDA kernels' source, which tells of every access: what no barrier orders is an error.
races: build
	ADAFOCUS_CUDA_HOST_MODE=races $(PY) -m pytest tests/ops -k cuda-host --numprocesses auto --dist worksteal $(ARGS)

mutants: build
	$(PY) -m pip install --quiet cosmic-ray
	$(PY) tests/mutants.py $(ARGS)

throughput: $(if $(strip $(CARDS)),$(VENV)/.built,$(VENV)/.built-cpu)
	$(PY) bench/throughput.py $(ARGS)

ops-bench: build
	$(PY) bench/ops.py $(ARGS)

cuda-report: build
	$(PY) bench/cuda_report.py $(ARGS)

# It builds the extension itself. ADAFOCUS_CUDA_ARCHS=9.0 builds for one architecture only, which is faster.
gpu: $(VENV)/.installed
	$(PY) bench/gpu.py $(ARGS)

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(filter %.h %.cpp %.cu %.cuh %.inl %.def,$(SOURCES))

format: build
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(filter %.h %.cpp %.cu %.cuh %.inl %.def,$(SOURCES))

# The CPU kernels under the address and undefined-behaviour sanitizers, on the conformance suite.
SANITIZE := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -static-libubsan
sanitize: build
	ADAFOCUS_CUDA=0 ADAFOCUS_EXTRA_CFLAGS="$(SANITIZE)" PATH="$(abspath $(VENV))/bin:$$PATH" \
	  $(PY) setup.py build_ext --build-lib build/sanitize --build-temp build/sanitize/tmp
	ADAFOCUS_EXTENSION="$$(ls build/sanitize/adafocus_ops/_C.*so)" ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  $(PY) -m pytest tests/ops -k "cpu and not compile and not opcheck" --require-backend cpu $(ARGS)

clean:
	rm -rf build dist *.egg-info adafocus_ops/_C.*so $(VENV)/.built $(VENV)/.built-cpu

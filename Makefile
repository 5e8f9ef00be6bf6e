# `make demo` and `make test` each do all of their own set-up: a .venv here, the dependencies, the operator.
# A stamp in .venv/.stamps is written when a step has ended well, never before, so that an interrupted
# set-up is taken up again. The set-up steps form one chain, so `make -j` cannot run two of them at once.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
TORCH_REQUIREMENTS ?= requirements/torch.txt
TESTS ?= tests ops_dcnv3/tests
ARCH ?= 9.0

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
PINS := -c requirements/constraints.txt -c requirements/openmmlab.txt
STAMPS := $(VENV)/.stamps

# The compiler as the build of the operator will look for it: CXX when somebody set it, else c++.
COMPILER_COMMAND := $(strip $(if $(filter default undefined,$(origin CXX)),c++,$(CXX)))
COMPILER := $(firstword $(COMPILER_COMMAND))
HAVE_COMPILER := $(shell command -v '$(COMPILER)' 2>/dev/null)
# nvcc likewise, see ops_dcnv3/cuda_toolkit.py.
CUDA_FOLDER := $(or $(CUDA_HOME),$(CUDA_PATH))
NVCC := $(if $(filter 0,$(USE_CUDA)),,$(shell command -v $(if $(CUDA_FOLDER),'$(CUDA_FOLDER)/bin/nvcc', \
    nvcc || command -v /usr/local/cuda/bin/nvcc) 2>/dev/null))
# In the name of the stamp: a compiler or a setting that has come, gone or changed since the last call means a new build.
NVCC_RELEASE := $(if $(NVCC),$(shell '$(NVCC)' --version 2>/dev/null | cksum | cut -d ' ' -f 1))
COMPILER_NAME := $(shell printf %s '$(COMPILER_COMMAND)$(if $(NVCC),-$(NVCC)-$(NVCC_RELEASE) $(NVCC_CCBIN) \
    $(TORCH_CUDA_ARCH_LIST))' | tr -c 'A-Za-z0-9.+-' _)
# What is demanded of the build, which fails where the compiler for it is missing.
DEMANDED := $(filter 1,$(USE_CUDA) $(if $(HAVE_COMPILER),,$(OPS_DCNV3_REQUIRE_NATIVE)))
OPERATOR := $(STAMPS)/operator-$(if $(HAVE_COMPILER),native-$(COMPILER_NAME),reference)$(if $(DEMANDED),-demanded)

OPERATOR_SOURCES := $(shell find ops_dcnv3/src -path '*/csrc/*' -type f 2>/dev/null)
OPERATOR_BUILD := $(addprefix ops_dcnv3/,setup.py cuda_toolkit.py cuda_objects.py pyproject.toml)
CXX_SOURCES := $(shell find ops_dcnv3/src ops_dcnv3/tests ops_dcnv3/benchmarks tensorrt tests/tensorrt -type f \
    -not -path '*/build/*' \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null)

# pip shows nothing of a build that went on without the kernels, so say it here, once.
REPORT_MISSING = import ops_dcnv3, sys; \
    reason = ops_dcnv3.extension_info()["missing"].get("cpu"); \
    reason and print("warning: no compiled operator, its slow reference path will run: " + reason \
    + "$(if $(HAVE_COMPILER),, (no C++ compiler \"$(COMPILER)\"; on Debian: apt-get install g++))", file=sys.stderr)

.PHONY: help setup setup-all demo test test-fast lint format wheel bench sass-report gpu-check

help: ## print this list
	@printf 'usage: make TARGET [PYTHON=python3.12] [TESTS=path]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMPS)/core ## .venv with PyTorch, the operator and internimage[train]

setup-all: $(STAMPS)/dev ## setup, OpenMMLab, and what the tests and the linters need

demo: setup ## train a small InternImage on handwritten digits, evaluate it, draw pictures: runs/demo/
	@$(PY) tools/demo.py

# The operator must have been compiled where a compiler is: a test run on the reference path would prove little.
test test-fast: export OPS_DCNV3_REQUIRE_NATIVE := $(if $(HAVE_COMPILER),1,)
NOTE_NO_NVCC = $(if $(NVCC),,@echo "note: the CUDA kernels are not compiled: $(if $(filter 0,$(USE_CUDA)),USE_CUDA=0,no nvcc \
    (looked for in CUDA_HOME, CUDA_PATH, PATH))" >&2)
RUN_TESTS = $(PY) -m pytest -c pyproject.toml
# Most of these are Python, which one core runs at a time: two processes of one thread each.
RUN_IN_TWO = OMP_NUM_THREADS=1 $(RUN_TESTS) -n 2 --dist loadfile
# The tests of trained models have one process: these are trained for it first, once, two at a time.
# A part in which nothing is selected (5 is what pytest ends with then) is right as long as the other
# one has tests; 2 is Ctrl-C.
test: setup-all lint ## set-up, linters, all tests; TESTS=path narrows
	$(NOTE_NO_NVCC)
	@ended=; \
	$(RUN_IN_TWO) -m "not trained" --durations=30 $(TESTS) || { ended+=" $$?"; [ "$$ended" != " 2" ]; }; \
	$(RUN_TESTS) -m trained --durations=30 $(TESTS) || ended+=" $$?"; \
	case "$$ended" in ""|" 5") ;; *) echo "tests failed (pytest ended with$$ended)" >&2; exit 1 ;; esac

test-fast: setup-all ## the tests that take less than about two seconds; TESTS=path narrows
	$(NOTE_NO_NVCC)
	@$(RUN_IN_TWO) -m "not slow and not trained" $(TESTS)

lint: setup-all ## ruff, mypy, clang-format, codespell: changes nothing
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(if $(CXX_SOURCES),$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES))
	@$(VENV)/bin/codespell

format: setup-all ## let ruff and clang-format rewrite the sources
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .
	@$(if $(CXX_SOURCES),$(VENV)/bin/clang-format -i $(CXX_SOURCES))

wheel: setup ## the operator's wheel, for CPUs and for all CUDA architectures: ops_dcnv3/dist/*.whl
	@rm -rf ops_dcnv3/dist ops_dcnv3/build/lib* ops_dcnv3/build/bdist*
	@$(PY) ops_dcnv3/cuda_toolkit.py
	@OPS_DCNV3_REQUIRE_NATIVE=1 $(PIP) wheel --quiet --no-build-isolation --no-deps --wheel-dir ops_dcnv3/dist ./ops_dcnv3
	@$(PY) ops_dcnv3/describe_wheel.py ops_dcnv3/dist/*.whl

bench: setup ## the operator's CPU benchmark table
	@$(PY) ops_dcnv3/benchmarks/bench_dcnv3.py

sass-report: setup ## what the compiler made of the CUDA kernels, without a GPU; ARCH=9.0
	@$(PY) ops_dcnv3/benchmarks/sass_report.py --arch '$(ARCH)'

# Runs where a GPU is, in an environment that has PyTorch: it downloads nothing and leaves the environment as it is.
gpu-check: ## on a GPU: build, GPU tests, benchmark; PYTHON=python3 with PyTorch
	@$(PYTHON) ops_dcnv3/benchmarks/gpu_check.py

# ---- set-up, one step a stamp ----

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "make: expected Python >= 3.10, got $$($(PYTHON) --version 2>&1 || true); choose one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/torch: $(STAMPS)/venv $(TORCH_REQUIREMENTS) $(addprefix requirements/,build.txt constraints.txt openmmlab.txt)
	@echo "[2/4] PyTorch and the build tools (the largest download, several GB with CUDA)"
	@$(PIP) install $(PINS) -r requirements/build.txt -r $(TORCH_REQUIREMENTS)
	@touch $@

# For this machine's GPUs only, or for 9.0 where there are none: `make wheel` takes several times as long.
$(OPERATOR): export TORCH_CUDA_ARCH_LIST := $(or $(TORCH_CUDA_ARCH_LIST),native)
$(OPERATOR): $(STAMPS)/torch $(OPERATOR_BUILD) $(OPERATOR_SOURCES)
	@echo "[3/4] the operator ops_dcnv3$(if $(HAVE_COMPILER), (compiling))"
	@rm -f $(STAMPS)/operator-* ops_dcnv3/src/ops_dcnv3/*.abi3.so
	@$(if $(HAVE_COMPILER),$(PY) ops_dcnv3/cuda_toolkit.py)
	@$(PIP) install --quiet --no-build-isolation --no-deps -e ./ops_dcnv3
	@$(PY) -W ignore -c '$(REPORT_MISSING)'
	@touch $@

$(STAMPS)/core: $(OPERATOR) setup.py pyproject.toml
	@echo "[4/4] internimage and its dependencies"
	@$(PIP) install --quiet --no-build-isolation $(PINS) -e '.[train]'
	@touch $@

$(STAMPS)/mmcv: $(STAMPS)/core tools/build_mmcv.py
	@echo "[mmcv] OpenMMLab's operators (compiled once, then from the cache)"
	@$(PIP) install --quiet $(PINS) ninja packaging psutil
	@wheel=$$($(PY) tools/build_mmcv.py) && $(PIP) install --quiet --force-reinstall --no-deps "$$wheel"
	@touch $@

# DeepSpeed would compile kernels for all that it can do, and fail where one cannot be; none is used here.
$(STAMPS)/dev: export DS_BUILD_OPS := 0
$(STAMPS)/dev: $(STAMPS)/mmcv requirements/deployment.txt
	@echo "[dev] OpenMMLab, DeepSpeed, ONNX, test and lint tools"
	@$(PIP) install --quiet --no-build-isolation $(PINS) -e '.[train,openmmlab,deepspeed,export,dev]'
	@$(PIP) install --quiet --no-build-isolation --no-deps -r requirements/deployment.txt
	@touch $@

# make demo [ONCE=1] | test | fuzz [ONLY=TARGET] | bench [ONLY=NAME, see benchmarks/README.rst] | docs | clean
# Each sets up what it needs first: Debian packages (as root), a virtual environment, the eBPF object.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
# Two at a time, also the system tests of single nodes; those of whole arrays have the machine for themselves.
SINGLE = $(addprefix tests.system.test_,install http processes systemd tls)
ARRAYS = $(filter-out $(SINGLE),$(subst /,.,$(basename $(wildcard tests/system/test_*.py))))
FAST = $(SINGLE) $(subst /,.,$(basename $(wildcard tests/test_*.py)) \
	$(patsubst %/__init__.py,%,$(filter-out tests/system/%,$(wildcard tests/*/__init__.py))))

# Hundreds of processes start in the tests; without this each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types trial fuzz bench docs setup system bpf clean

demo: setup
	$(BIN)/python -m lbarray demo $(if $(ONCE),--once) --json demo.json

test: lint types trial

lint: setup
	$(BIN)/ruff check lbarray tests twisted benchmarks docs
	$(BIN)/ruff format --check lbarray tests twisted benchmarks docs

types: setup
	$(BIN)/mypy

trial: setup
	@mkdir -p build
ifeq ($(TESTS),tests)
	$(BIN)/trial -j2 --temp-directory=build/trial-fast $(FAST) 2>&1 | tee build/trial.log; fast=$$?; \
	$(BIN)/trial --reporter=timing --temp-directory=build/trial $(ARRAYS) 2>&1 | tee -a build/trial.log; exit $$((fast | $$?))
else
	$(BIN)/trial --temp-directory=build/trial $(TESTS) 2>&1 | tee build/trial.log
endif

# Each target for FUZZ_SECONDS (60). Not part of the tests: it has no end, and needs clang.
fuzz: setup $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(ONLY)

$(VENV)/.fuzz: $(VENV)/.ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[fuzz]'
	@touch $@

bench: setup
	$(BIN)/python -m benchmarks $(ONLY)

docs: setup
	$(BIN)/sphinx-build -q -W -b html docs build/docs
	@echo build/docs/index.html

setup: system $(VENV)/.ready bpf

system:
	@tools/system-packages

$(VENV)/.ready: tests/browser/requirements.txt
$(VENV)/.ready: setup.cfg setup.py pyproject.toml lbarray/scheduler/_rows.c lbarray/rewrite/_scan.c lbarray/http/_hpack.c lbarray/http/_heads.c lbarray/telemetry/_lines.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lbarray needs Python 3.11 or newer, this is " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Python packages into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[dev]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/browser/requirements.txt
	@touch $@

bpf: $(VENV)/.ready
	@if command -v clang >/dev/null; then $(BIN)/python -m lbarray.bpf.build; fi

clean:
	find lbarray -name '*.so' -delete
	rm -rf build $(VENV) lbarray/bpf/*.o *.egg-info .mypy_cache .ruff_cache

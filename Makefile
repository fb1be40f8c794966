# What a newcomer needs: `sudo make run` and `sudo make test`. CONTRIBUTING.md says more.

SHELL := /bin/bash
BIN := .venv/bin
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 300

# The caches that root leaves behind belong to the owner of the checkout. -h: never follow a link.
caches = $$(ls -d .*_cache .hypothesis 2>/dev/null)
give_back = [ "$$(id -u)" -ne 0 ] || chown -hR --reference=pyproject.toml Makefile $(caches)

.PHONY: help setup dev run test lint types format fuzz soak-differential test-programs bench man dist deb clean
.NOTPARALLEL:

help:
	@echo 'sudo make run    set everything up and serve the demo mount (config/mounts/demo.yaml); Ctrl-C ends it'
	@echo 'sudo make test   set everything up, then lint, types and tests (PYTEST_ARGS="tests/pure -k x" narrows)'
	@echo 'sudo make soak   storms of calls while workers die, DEATHS=300 of them (fewer: faster); a table at the end'
	@echo 'make setup       system packages, .venv and the package in it (PYTHON=... chooses the interpreter)'
	@echo 'make dev         setup, with the tools for tests and lint'
	@echo 'make lint        ruff, mypy --strict, import-linter'
	@echo 'make format      let ruff format the code and sort the imports'
	@echo 'make fuzz        fuzz the decoders for FUZZ_SECONDS=60 each'
	@echo 'sudo make soak-differential  random calls on mounts and on native folders, SOAK_SECONDS=300 for each kind'
	@echo 'sudo make test-programs      git, sqlite, CPython, fio, stress-ng and others, natively and on mounts, an hour'
	@echo '                 (PROGRAMS="git fio" and PLACES="native io_uring" narrow)'
	@echo 'sudo make bench  ringmount beside its peers, into docs/bench/, 25 minutes (QUICK=1: 3, into build/bench/)'
	@echo 'sudo make screenshot         the picture of `ringmount top`, docs/top.svg, anew'
	@echo 'make dist        source archive and wheel in dist/'
	@echo 'make deb         dist/ringmount_VERSION_ARCH.deb, with all that it needs of Python in it'
	@echo 'make man         the manual pages, in build/man/'
	@echo 'make clean       remove what these commands made, .venv too'

setup:
	@.ci/setup run

dev:
	@.ci/setup dev

run:
	@[ "$$(id -u)" -eq 0 ] || { echo 'ringmount: the demo needs root: sudo make run' >&2; exit 1; }
	@.ci/setup run
	@.ci/ring
	@exec .ci/demo

# Where root and the ring are at hand, a test that skips for want of them fails.
test: dev
	@.ci/ring
	@if [ "$$(id -u)" -ne 0 ]; then \
	     echo 'ringmount: tests that mount need root and will be skipped: sudo make test runs them all'; \
	 elif grep -qs Y /sys/module/fuse/parameters/enable_uring; then \
	     export RINGMOUNT_REQUIRE_RING=1; \
	 fi; \
	 $(MAKE) --no-print-directory lint pytest; result=$$?; $(give_back); exit $$result

# TRANSPORTS="io_uring" and PARTS="kindly harshly supervisors programs leaks" narrow it.
DEATHS ?= 300
soak: dev
	@.ci/ring
	@DEATHS=$(DEATHS) PYTHONPATH=tests $(BIN)/python -P tests/mount/storm/soak.py

lint: dev
	@echo '== ruff check';    $(BIN)/ruff check
	@echo '== ruff format';   $(BIN)/ruff format --check
	@echo '== mypy --strict'; $(BIN)/mypy
	@echo '== import-linter'; $(BIN)/lint-imports --no-logo

.PHONY: pytest
pytest: dev
	@echo '== pytest';        $(BIN)/python -P -m pytest $(PYTEST_ARGS)

# Places are those of tests/programs/places.py; a program is named after its file there.
test-programs:
	@.ci/setup programs
	@.ci/ring
	@RINGMOUNT_PROGRAMS=1 PLACES="$(PLACES)" nice $(BIN)/python -P -m pytest $(PYTEST_ARGS) \
	     $(if $(PROGRAMS),$(PROGRAMS:%=tests/programs/test_%.py),tests/programs)

format: dev
	@$(BIN)/ruff check --fix --select I
	@$(BIN)/ruff format

# Each target starts from the checked-in corpus; what it finds on the way goes to build/fuzz, a crash to crash-*.
fuzz:
	@.ci/setup fuzz
	@set -e; for target in tests/fuzz/fuzz_*.py; do \
	     name=$$(basename "$$target" .py); mkdir -p "build/fuzz/$$name"; \
	     echo "== $$name, $(FUZZ_SECONDS) seconds"; \
	     $(BIN)/python -P "$$target" -max_total_time=$(FUZZ_SECONDS) "build/fuzz/$$name" tests/fuzz/corpus; \
	 done

# Ends with the first difference, made short, as a case for tests/mount/differential/test_cases.py.
soak-differential: dev
	@.ci/ring
	@RINGMOUNT_SOAK=$(SOAK_SECONDS) $(BIN)/python -P -m pytest -x tests/mount/differential/soak.py $(PYTEST_ARGS); \
	 result=$$?; $(give_back); exit $$result

# The bench brings what it needs besides (bench/prepare.py); BENCH_ARGS goes to bench/run.py.
bench: dev
	@.ci/ring
	@$(BIN)/python bench/run.py $(if $(filter-out 0,$(QUICK)),--quick) $(BENCH_ARGS)

# The picture of `ringmount top` in the README.
.PHONY: screenshot
screenshot: dev
	@.ci/ring
	@$(BIN)/python docs/screenshot.py

dist: dev
	@rm -rf dist
	@$(BIN)/python -P -m build --no-isolation

deb: dev
	@$(BIN)/python -P .deb/build.py

man: setup
	@$(BIN)/python -P -m ringmount.daemon.manpages build/man

clean:
	@rm -rf .venv build dist *.egg-info workers/_native*.so .*_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

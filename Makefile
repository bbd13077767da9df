# What can be done here; each target works by itself in a fresh clone. GNU Make 3.81 and a POSIX shell are enough.
#   make run    install into .venv and start Ad Export on http://127.0.0.1:8000 (or PORT=)
#   make test   install what the tests need and run them

PYTHON := .venv/bin/python
PEERS := .venv-bench/huey/.installed-bench-huey .venv-bench/dbos/.installed-bench-dbos \
         .venv-bench/eventsourcing/.installed-bench-eventsourcing
INPUTS := tools/setup.sh packages/tidings/pyproject.toml packages/adexport/pyproject.toml

# A copied or moved .venv still runs the code of its old place: it is made again.
FOLDER := $(shell cat .venv/.folder 2>/dev/null)
ifneq ($(FOLDER),)
ifneq ($(FOLDER),$(shell pwd -P))
MOVED := moved
endif
endif

.PHONY: help setup run run-cloud lambda-package test check conformance bench soak lock browser moved

help:
	@echo 'make run     start Ad Export with its sample designs (PORT=8000)'
	@echo 'make run-cloud  start Ad Export as in AWS: queues, function, bucket, on this machine (PORT=8000)'
	@echo 'make test    run the tests'
	@echo 'make check   format, lint, types, floors, budgets'
	@echo 'make conformance  what each store and transport proves, as a table'
	@echo 'make setup   only install what `make run` needs'
	@echo 'make bench   measure beside the peers'
	@echo 'make soak    run the long tests'
	@echo 'make lambda-package  build what deploy/template.yaml puts into AWS Lambda'
	@echo 'make lock    resolve the dependencies again (needs uv; UPGRADE=--upgrade takes newer versions)'

setup: .venv/.installed-run

run: setup
	.venv/bin/adexport serve $(if $(PORT),--port $(PORT))

run-cloud: .venv/.installed-test
	$(if $(PORT),PORT=$(PORT)) $(PYTHON) tools/run_cloud.py

lambda-package: .venv/.installed-test
	$(PYTHON) tools/lambda_package.py

test: .venv/.installed-test
	@sh tools/browser.sh
	@sh tools/pgbouncer.sh
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

check: .venv/.installed-check
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) tools/budgets.py

conformance: .venv/.installed-test
	$(PYTHON) tools/conformance.py

bench: .venv/.installed-test $(PEERS)
	$(PYTHON) benchmarks/embedded.py
	$(PYTHON) benchmarks/postgres.py
	$(PYTHON) benchmarks/sourcing.py
	$(PYTHON) benchmarks/render.py

soak: .venv/.installed-test
	$(PYTHON) -m pytest -m soak
	$(PYTHON) benchmarks/postgres.py --soak

lock: .venv/.installed-run
	$(PYTHON) tools/lock.py $(UPGRADE)

.venv/.installed-run: requirements/run.lock $(INPUTS) $(MOVED)
	@sh tools/setup.sh run

.venv/.installed-test: requirements/test.lock .venv/.installed-run
	@sh tools/setup.sh test

.venv/.installed-check: requirements/check.lock .venv/.installed-test
	@sh tools/setup.sh check

.venv-bench/huey/.installed-bench-huey: requirements/bench-huey.lock tools/setup.sh
	@sh tools/setup.sh bench-huey .venv-bench/huey

.venv-bench/dbos/.installed-bench-dbos: requirements/bench-dbos.lock tools/setup.sh
	@sh tools/setup.sh bench-dbos .venv-bench/dbos

.venv-bench/eventsourcing/.installed-bench-eventsourcing: requirements/bench-eventsourcing.lock tools/setup.sh
	@sh tools/setup.sh bench-eventsourcing .venv-bench/eventsourcing

# Two commands do everything on a machine that has Python 3.11 to 3.13, make and git: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := constraints-$(VERSION).txt
READY := $(VENV)/.ready-$(VERSION)
# Cached bytecode halves the start of every Airflow process, also where the environment switches the cache off.
unexport PYTHONDONTWRITEBYTECODE
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv

# Servers that Python has no package of; none of them is started as a service. Tests that want them are skipped with the reason where they are not to be had.
DEBIAN := slapd ldap-utils prometheus-alertmanager postgresql redis-server nodejs

.PHONY: help demo test system lint docs bench tables constraints clean debian
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml $(CONSTRAINTS)
	@echo "Python $(VERSION): building $(VENV) from $(CONSTRAINTS)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' $(CONSTRAINTS))"
	@$(UV) pip install --quiet --python $(BIN)/python -c $(CONSTRAINTS) --group dev
	@$(UV) pip install --quiet --python $(BIN)/python -c $(CONSTRAINTS) --no-build-isolation -e '.[all]'
	@touch $@

debian:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(DEBIAN) >/dev/null 2>&1; then \
		echo "Installing $(DEBIAN)"; \
		echo "slapd slapd/no_configuration boolean true" | debconf-set-selections; \
		policy=/usr/sbin/policy-rc.d; \
		if [ ! -e $$policy ]; then (umask 022; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy); made=$$policy; fi; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN); } \
			>/dev/null 2>&1 || echo "Installing $(DEBIAN) failed: what wants them is left out"; \
		rm -f "$$made"; \
	fi

demo: debian ## Backfill, live sync and an alert on embedded servers; ONCE=1 unattended, SYSTEMS=slack,sagemaker a part
	@started=$$(date +%s); $(MAKE) --no-print-directory $(READY) && \
	AIRIS_DEMO_SETUP_S=$$(($$(date +%s) - started)) exec $(BIN)/python -m sandbox.demo $(if $(ONCE),--once) $(if $(SYSTEMS),--systems $(SYSTEMS))

test: debian $(READY) ## Every test, in two processes; ARGS='-k slack' for some
	$(BIN)/python -m pytest -n 2 $(ARGS)

# Files that name the system, and the contract of every row.
SYSTEM_TESTS = tests/contract $(shell grep -rlE '(^|[^a-z])$(S)([^a-z]|$$)' tests/unit tests/integration --include='test_*.py')
system: $(READY) ## One system's tests: make system S=teams
	@test -n "$(S)" || { echo "Name a system: make system S=teams"; exit 2; }
	$(BIN)/python -m pytest -q -n 2 -k "$(S)" $(SYSTEM_TESTS) $(ARGS)

lint: $(READY) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## The documentation, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

tables: $(READY) ## Write the tables of README and docs, and compose's servers, anew from the catalog
	$(BIN)/python -m docs.tables
	$(BIN)/python -m sandbox.compose

bench: debian $(READY) ## The figures of benchmarks/, into benchmarks/results.json
	$(BIN)/python -m benchmarks

constraints: $(READY) ## Resolve the newest tested set anew; PYTHON names which Python's
	$(UV) pip compile --quiet --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
		--python $(PYTHON) --extra all --group dev -o $(CONSTRAINTS) pyproject.toml

clean: ## Remove what the other targets made
	rm -rf $(VENV) .demo build dist docs/_build .pytest_cache .mypy_cache .ruff_cache

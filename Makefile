# Two commands matter: `make demo` and `make test`. All that they make is under var/.

VENV := var/venv/bin
PYTEST := $(VENV)/python -m pytest
LOCK := $(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate
PRODUCTION := edge hub

# Compiled sources are kept: every process that starts, and every worker of the tests, starts sooner.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check check-lock lock bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## A street of homes, from Modbus to PostgreSQL; ONCE=1 ends after the day with status 0 or 1
	@$(VENV)/commonwatt demo $(if $(ONCE),--once)

test: setup ## Every test but the long ones (real PostgreSQL and Mosquitto; no system package is needed)
	$(PYTEST) -n 4 --dist worksteal -m "not long"

test-long: setup ## The volumes that issues name: hundreds of kills, hundreds of lying histories
	$(PYTEST) -n logical -m long --hypothesis-profile=exploring

check: setup check-lock ## Locks, style, types, import directions, what the program was built from
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/python -m programs.build --check

bench: setup ## Measure this machine
	@$(VENV)/commonwatt bench

lock: setup ## Lock the dependencies of pyproject.toml again; UPGRADE=1 takes the newest
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	for room in $(PRODUCTION); do \
		$(LOCK) pyproject.toml --extra $$room -c requirements/dev.txt -o requirements/$$room.txt || exit; done

check-lock: setup
	@mkdir -p var/lock && cp requirements/*.txt var/lock/
	@$(LOCK) pyproject.toml --all-extras --group dev -o var/lock/dev.txt
	@for room in $(PRODUCTION); do \
		$(LOCK) pyproject.toml --extra $$room -c var/lock/dev.txt -o var/lock/$$room.txt || exit; done
	@for file in requirements/*.txt; do diff -u $$file var/lock/$${file##*/} >&2 || \
		{ echo "$$file is not current: make lock" >&2; exit 1; }; done
	@! grep -nE '://|--(extra-)?index-url|--find-links' requirements/*.txt || \
		{ echo "a lock file must not name an index: it is the machine's choice" >&2; exit 1; }

clean: ## Delete what was made, downloads and environment included
	rm -rf var build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@infra/local/setup.sh

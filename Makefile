# `make run` shows it, `make test` proves it. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

AHEAD := TZ=Pacific/Kiritimati $(BIN)/python -m tests.clock --days 400

.PHONY: run test test-days check torture bench bench-check wheel clean

run: $(VENV)/.installed
	$(BIN)/deploy-relay demo $(if $(ONCE),--once)

test: $(VENV)/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

# What depends on the day or on the time zone shows by a clock that is 400 days ahead, in a zone
# where the date is another one than in UTC for most of the day.
test-days: $(VENV)/.installed
	$(AHEAD) $(BIN)/pytest --numprocesses 2 --dist loadfile -m "not slow" \
		$(or $(ARGS),tests/config tests/console tests/relay)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

torture: $(VENV)/.installed
	$(BIN)/python -m tests.relay.ledger.torture
	$(BIN)/python -m tests.faults.fuzz
	$(BIN)/python -m tests.faults.campaign
	$(BIN)/python -m tests.faults.order
	$(BIN)/python -m tests.faults.freeze
	$(BIN)/python -m tests.faults.outage
	$(BIN)/python -m tests.faults.clocks
	RELAY_TEST_CONNECTIONS=2000 $(BIN)/pytest -q tests/e2e/test_bounds.py -k slow_connections

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

bench-check: $(VENV)/.installed
	$(BIN)/python -m benchmarks check

wheel: $(VENV)/.installed
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --group dev --editable '.[embedded,otel]'
	touch $@

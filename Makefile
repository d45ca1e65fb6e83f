# `make setup` first; everything else uses what it puts into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-all test-kafka check bench clean

setup: .venv/.complete

.venv/.complete: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "streamer needs Python 3.11 or later; name one with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --editable '.[uvloop]'
	touch $@

demo: setup  ## The shop: its broker, two workers, a stream of orders, live figures; Ctrl-C ends all.
	$(BIN)/python examples/demo.py

test: setup  ## Everything that needs neither Java nor much patience.
	$(BIN)/python -m pytest -m 'not slow and not kafka'
	@echo "left out: the slow tests (make test-all), the comparison with Apache Kafka (make test-kafka; needs Java 17 and Maven)"

test-all: setup  ## The long ones too.
	$(BIN)/python -m pytest -m 'not kafka'

test-kafka: setup  ## Conformance and the worker against Apache Kafka, one node and three; Kafka's own tools against ours.
	$(BIN)/python -m pytest tests/conformance tests/worker -m 'not slow' --against=kafka
	$(BIN)/python -m pytest -m kafka

check: setup  ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## The broker beside Apache Kafka (needs Java 17 and Maven); see docs/performance.md
	$(BIN)/python benchmarks/broker.py

clean:
	rm -rf .venv .streamer examples/.streamer .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

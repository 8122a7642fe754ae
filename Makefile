# `make demo` and `make test` set themselves up on a bare machine (git, make, Python 3.11+; tests also Java 17 and Maven).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint kafka sample clean
.DELETE_ON_ERROR:

$(VENV)/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[train,dev]'
	touch $@

deploy/kafka/libs/.done: deploy/kafka/pom.xml
	mvn --batch-mode --quiet --file deploy/kafka/pom.xml dependency:copy-dependencies
	touch $@

kafka: deploy/kafka/libs/.done

demo: $(VENV)/.run
	$(BIN)/skutrend demo

test: $(VENV)/.dev kafka
	$(BIN)/python -m pytest tests/unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.generate --check

clean:
	rm -rf skutrend-demo skutrend-state

# `make demo` and `make test` set themselves up on a bare machine (git, make, Python 3.11+; tests also Java 17 and Maven).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KAFKA := deploy/kafka/libs/.complete

.PHONY: demo test check unit torture torture-kafka lint kafka bench clean
.DELETE_ON_ERROR:

$(VENV)/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[train,dev]'
	touch $@

# one test asks it about /metrics; outside CI that may be skipped, where there is no Debian to take it from
$(BIN)/promtool: deploy/promtool.sh | $(VENV)/.run
	command -v promtool >/dev/null && ln -sf "$$(command -v promtool)" $@ || deploy/promtool.sh $(BIN) || test -z "$$CI"

$(KAFKA): deploy/kafka/pom.xml
	mvn --batch-mode --quiet --file deploy/kafka/pom.xml dependency:copy-dependencies
	touch $@

kafka: $(KAFKA)

demo: $(VENV)/.run
	$(BIN)/skutrend demo

test: lint check

# three at a time, since most tests on Kafka wait: each process has a broker of its own (400 MB)
check: $(VENV)/.dev $(KAFKA) $(BIN)/promtool
	$(BIN)/python -m pytest -n 3 --dist worksteal

# the quick half: no Kafka, no child processes
unit: $(VENV)/.dev $(BIN)/promtool
	$(BIN)/python -m pytest tests/unit tests/properties tests/simulation -m 'not kafka'

# thousands of schedules of crashes, zombies and lost disks; a failing one says how to replay it
torture: $(VENV)/.dev
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),5000) --start $(or $(START),0)

# the same on a real Kafka, for as long as asked: workers and broker are killed, stopped and frozen, disks are lost
torture-kafka: $(VENV)/.dev $(KAFKA)
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) --workers $(or $(WORKERS),3) \
	  --guarantee $(or $(GUARANTEE),exactly_once)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.generate --check

bench: $(VENV)/.dev $(KAFKA)
	$(BIN)/python -m tests.bench

clean:
	rm -rf skutrend-demo skutrend-state

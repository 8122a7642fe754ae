# `make demo` and `make test` set themselves up on a bare machine (git, make, Python 3.11+; tests also Java 17 and Maven).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KAFKA := deploy/kafka/libs/.complete
REGISTRY := deploy/registry/app/.complete

.PHONY: demo test check unit torture torture-kafka lint kafka bench mutants lock hooks clean
.DELETE_ON_ERROR:

# everything is installed as deploy/lock/ has it, hash by hash: what is released tomorrow changes nothing here
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := deploy/lock

$(VENV)/.run: pyproject.toml $(LOCK)/run.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes --requirement $(LOCK)/run.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run $(LOCK)/dev.txt
	$(INSTALL) --require-hashes --requirement $(LOCK)/dev.txt
	touch $@

$(VENV)/.mutants: $(VENV)/.dev $(LOCK)/mutants.txt
	$(INSTALL) --require-hashes --requirement $(LOCK)/mutants.txt
	touch $@

# renew the lock from pyproject.toml
COMPILE := $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-header --no-annotate --upgrade
lock:
	test -x $(VENV)/lock/bin/python || $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --extra train --extra references --extra registry --extra dev --extra mutants pyproject.toml $(LOCK)/build.in --output-file $(LOCK)/mutants.txt
	$(COMPILE:--upgrade=) --extra train --extra references --extra registry --extra dev pyproject.toml $(LOCK)/build.in --constraint $(LOCK)/mutants.txt --output-file $(LOCK)/dev.txt
	$(COMPILE:--upgrade=) pyproject.toml $(LOCK)/build.in --constraint $(LOCK)/mutants.txt --output-file $(LOCK)/run.txt

# let git run the checks of `make lint` before each commit
hooks: $(VENV)/.dev
	$(BIN)/pre-commit install

# one test asks it about /metrics; outside CI that may be skipped, where there is no Debian to take it from
$(BIN)/promtool: deploy/promtool.sh | $(VENV)/.run
	command -v promtool >/dev/null && ln -sf "$$(command -v promtool)" $@ || deploy/promtool.sh $(BIN) || test -z "$$CI"

$(KAFKA): deploy/kafka/pom.xml
	mvn --batch-mode --quiet --file deploy/kafka/pom.xml dependency:copy-dependencies
	touch $@

# two tests ask a real schema registry; they are skipped where it cannot be had
$(REGISTRY): deploy/registry/pom.xml
	mvn --batch-mode --quiet --file deploy/registry/pom.xml dependency:unpack && touch $@ || true

kafka: $(KAFKA)

demo: $(VENV)/.run
	$(BIN)/skutrend demo

test: lint check

# three at a time, since most tests on Kafka wait: each process has a broker of its own (400 MB)
check: $(VENV)/.dev $(KAFKA) $(REGISTRY) $(BIN)/promtool
	$(BIN)/python -m pytest -n 3 --dist worksteal

# the quick half: no Kafka, nothing that is slow by nature, fewer examples of each property; `make check` runs all
unit: $(VENV)/.dev $(BIN)/promtool
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest tests/unit tests/properties tests/simulation -m 'not kafka and not slow' \
	  -n 3 --dist worksteal

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

# change one operator at a time, and tell which changes no test notices
mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants --count $(or $(COUNT),84) --seed $(or $(SEED),0)

bench: $(VENV)/.dev $(KAFKA)
	$(BIN)/python -m tests.bench

clean:
	rm -rf skutrend-demo skutrend-state

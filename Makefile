# Everything a newcomer types. Each target makes the virtual environment it needs; nothing else has to be installed first.
# PYTHON=python3.13 takes another interpreter, in an environment of its own.
VENV ?= .venv$(addprefix -,$(notdir $(PYTHON)))
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test long quick money faults fast image boot newcomer matrix citus release-check check audit fuzz format lock simulate replay leaks mutants mutants-sample mutation benchmark screenshots docs docs-settings clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.done ## watch orders become final, with nothing configured
	@$(BIN)/order-monitor demo $(ARGS)

test: $(VENV)/dev.done ## the tests that decide; ARGS="-k gate" for some of all there are
	@.ci/tools
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(TESTS) --hypothesis-profile=test $(or $(ARGS),-m "not long")
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet)

long: $(VENV)/dev.done ## after make test: whole shops, hours of virtual time, browsers, more examples
	@.ci/tools
	$(TESTS) -m "long or hypothesis" $(ARGS)
ifdef COVERAGE
	$(BIN)/coverage combine --quiet --append
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include='$(CORE)'
endif

# With COVERAGE=1, as in CI, they count the lines of both together: each goes over some that the other does not.
TESTS = $(BIN)/$(if $(COVERAGE),coverage run -m )pytest -n $(WORKERS) --dist loadgroup

# Compiled once, not in each of a hundred processes.
test long quick: export PYTHONDONTWRITEBYTECODE =

CORES := $(shell nproc 2>/dev/null || echo 2)
# Half of the time a test waits for a process, a server or a browser; each worker has a database server of its own.
WORKERS ?= $(shell echo $$(($(CORES) < 4 ? 2 * $(CORES) : $(CORES) < 8 ? 8 : $(CORES))))
COMMA := ,
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
CORE := order_monitor/core/*,$(subst $(SPACE),$(COMMA),$(patsubst %,order_monitor/timing/%.py,advice day distribution hour memory plan plan_table planner sketch surprise)),$(subst $(SPACE),$(COMMA),$(patsubst %,order_monitor/providers/%.py,http/body http/json_document znet/parser))

quick: $(VENV)/dev.done ## what decides, reads answers and plans, in 20 seconds: no server, no browser, no process, few examples
	$(BIN)/python -m pytest -q -n $(CORES) -m "not outside and not long and not slow" -p no:cacheprovider --hypothesis-profile=quick \
	  $(or $(ARGS),tests/core tests/providers tests/timing tests/corpus)

money: $(VENV)/dev.done ## a Django shop's wallets, to the last cent: 10,000 orders while everything is killed, and 2,000 through the guide from Celery
	@.ci/tools
	MONEY_ORDERS=$(MONEY_ORDERS) SWITCHING_ORDERS=$(SWITCHING_ORDERS) $(BIN)/python -m pytest -q -s -n0 \
	  tests/contrib/test_money.py tests/contrib/test_switching.py $(ARGS)

MONEY_ORDERS ?= 10000
SWITCHING_ORDERS ?= 2000

faults: $(VENV)/dev.done ## real faults, compared row by row: minutes of kills, cuts and freezes (FAULTS_KILLS=10)
	rm -rf build/faults
	FAULTS=1 $(BIN)/python -m pytest -q -n0 --timeout 300 tests/faults $(ARGS)
	@cat build/faults/report.txt

fast: $(VENV)/fast.done ## the transport, and the program's processes, on the event loop of the extra "fast"
	PYTHONPATH=$(abspath $(VENV))/fast $(BIN)/python -W ignore::DeprecationWarning -m pytest -q -n $(CORES) -p tests.fast.policy \
	  tests/providers/test_transport.py tests/providers/znet tests/providers/client_api/test_parser.py $(ARGS)
	FAST=1 PYTHONPATH=$(abspath $(VENV))/fast $(BIN)/python -m pytest -q -n $(CORES) tests/fast tests/commands/test_process.py \
	  tests/commands/test_cluster.py tests/commands/test_reload.py tests/commands/test_people.py $(ARGS)

image: $(VENV)/dev.done ## build the image and run it: read-only, without rights, stopped under load; needs root
	.ci/image
	$(SHIPPED) tests/shipped/test_image.py $(ARGS)

boot: $(VENV)/dev.done ## deploy's units in a booted systemd: killed, frozen, reloaded, stopped under load; needs root
	.ci/image
	.ci/machine
	$(SHIPPED) tests/shipped/test_boot.py $(ARGS)

newcomer: $(VENV)/dev.done ## the README's commands, followed to the letter in a fresh clone on a bare Debian; needs root
	.ci/newcomer
	$(SHIPPED) tests/shipped/test_newcomer.py $(ARGS)

SHIPPED = SHIPPED=1 $(BIN)/python -m pytest -q -n0 -s

matrix: $(VENV)/dev.done ## the tests that touch the database, on PostgreSQL 14 to 18 and each Python found here; five minutes each and more; ARGS="14 15"
	@BIN=$(BIN) .ci/matrix $(ARGS)

citus: $(VENV)/dev.done ## the shop's side on a real Citus: CITUS_DSN=postgresql://superuser@host/postgres
	@test -n "$(CITUS_DSN)" || { echo "give the address of a PostgreSQL with Citus: make citus CITUS_DSN=postgresql://..."; exit 2; }
	CITUS_DSN=$(CITUS_DSN) $(BIN)/python -m pytest -q -n0 -k "not whatever_the_shop_calls_it" \
	  tests/shop/test_citus.py tests/shop/test_accounts.py tests/shop/test_pins.py $(ARGS)

release-check: check docs ## a release tried dry, with the built wheel
	.ci/release $(VENV)

check: $(VENV)/dev.done $(VENV)/audit.done ## linters, types, layers, spelling, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell order_monitor tests deploy docs benchmarks README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md Makefile
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit

audit: $(VENV)/audit.done ## known vulnerabilities of what is locked; fails where the advisories cannot be asked
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit --strict

format: $(VENV)/dev.done ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.done ## pin what the image installs, and what development does
	$(COMPILE) -o deploy/requirements.lock pyproject.toml
	$(COMPILE) --extra notify --constraint deploy/requirements.lock -o deploy/notify.lock pyproject.toml
	$(COMPILE) --build-deps-for wheel --only-build-deps -o deploy/build.lock pyproject.toml
	$(BIN)/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[demo]' --group dev
	$(BIN)/pip list --format freeze --exclude-editable | grep -viE '^(pip|setuptools|django)==' > deploy/dev.lock

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-header --no-annotate \
  --no-emit-trusted-host --no-emit-find-links --allow-unsafe --upgrade

simulate: $(VENV)/dev.done ## hours of faults in virtual time: SEEDS=10000, or SEEDS=100-200
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

SEEDS ?= 200

replay: $(VENV)/dev.done ## whole simulated runs again on a real PostgreSQL, statement by statement: REPLAYS=20
	SIMULATION_REPLAYS=$(REPLAYS) $(BIN)/python -m pytest -q -n $(CORES) tests/simulation/test_replay.py $(ARGS)

REPLAYS ?= 20

leaks: $(VENV)/dev.done ## a virtual day of accounts, orders and passwords that come and go, and CHECKS checks: nothing stays
	LEAKS_HOURS=24 LEAKS_CHECKS=$(CHECKS) $(BIN)/python -m pytest -q -n0 -s --timeout 7200 tests/simulation/test_leaks.py $(ARGS)

CHECKS ?= 1000000

mutants: $(VENV)/dev.done ## planted bugs, each of which the simulation must see; ARGS="--since 40" leaves some out
	$(BIN)/python -m tests.simulation.mutants $(ARGS)

mutants-sample: $(VENV)/mutation.done ## random small changes to the whole package, and how many the simulation alone sees; ARGS="--sql --under shop --tests tests/shop": changes of SQL, by tests
	$(BIN)/python -m tests.simulation.mutants.sample $(ARGS)

mutation: $(VENV)/mutation.done ## small changes to what decides, each noticed or argued in .ci/survivors.toml; takes long, ARGS="order_monitor.core.gate.*" less
	$(BIN)/python .ci/mutation.py $(ARGS)

fuzz: $(VENV)/fuzz.done ## a coverage-guided fuzzer on the parser, on heads and chunks, and on the settings file, SECONDS each
	@mkdir -p build
	$(BIN)/python -m tests.fuzz answers -max_total_time=$(SECONDS) -artifact_prefix=build/ -print_final_stats=1
	$(BIN)/python -m tests.fuzz responses -max_total_time=$(SECONDS) -artifact_prefix=build/ -print_final_stats=1
	$(BIN)/python -m tests.fuzz settings -max_total_time=$(SECONDS) -artifact_prefix=build/ -print_final_stats=1

SECONDS ?= 60

benchmark: $(VENV)/benchmark.done ## beside Celery and two PostgreSQL queues, into build/benchmark; QUICK=1: under 3 minutes
	$(VENV)/benchmark/bin/python -m benchmarks.compare $(if $(QUICK),--quick) $(ARGS)

screenshots: $(VENV)/dev.done ## the page in every state, language and size, into build/screenshots
	@.ci/tools
	$(BIN)/python -m tests.screenshots

docs: docs-settings ## the book as a site, into build/site
	$(BIN)/properdocs build --strict --quiet

docs-settings: $(VENV)/docs.done ## write docs/settings.md from the settings themselves
	$(BIN)/python docs/settings_page.py

clean: ## take away what make made
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(VENV)/demo.done: pyproject.toml | $(BIN)/pip
	@echo "Installing order-monitor into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/dev.done: pyproject.toml deploy/dev.lock | $(BIN)/pip
	@echo "Installing order-monitor and its tools into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[demo]' --group dev --constraint deploy/dev.lock
	@touch $@ $(VENV)/demo.done

$(VENV)/benchmark.done: pyproject.toml benchmarks/install
	@echo "Installing order-monitor and what it is compared with into $(VENV)/benchmark …"
	@benchmarks/install $(VENV)/benchmark
	@touch $@

$(VENV)/audit.done: pyproject.toml | $(BIN)/pip
	@echo "Installing what audits dependencies into $(VENV) …"
	@$(BIN)/pip install --quiet --group audit
	@touch $@

$(VENV)/fuzz.done: pyproject.toml | $(VENV)/dev.done
	@echo "Installing the fuzzer into $(VENV) …"
	@$(BIN)/pip install --quiet --group fuzz
	@touch $@

$(VENV)/fast.done: pyproject.toml | $(VENV)/dev.done
	@echo "Installing uvloop into $(VENV)/fast …"
	@$(BIN)/pip install --quiet --target $(VENV)/fast --upgrade uvloop
	@touch $@

$(VENV)/mutation.done: pyproject.toml | $(VENV)/dev.done
	@echo "Installing what changes the code into $(VENV) …"
	@$(BIN)/pip install --quiet --group mutation
	@touch $@

$(VENV)/docs.done: pyproject.toml | $(BIN)/pip
	@echo "Installing what builds the book into $(VENV) …"
	@$(BIN)/pip install --quiet --editable . --group docs
	@touch $@

$(BIN)/pip:
	@.ci/venv $(VENV)

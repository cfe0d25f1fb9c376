# Everything a newcomer types. Each target makes the virtual environment it needs; nothing else has to be installed first.
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check format lock benchmark screenshots clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.done ## watch orders become final, with nothing configured
	@$(BIN)/order-monitor demo $(ARGS)

test: $(VENV)/dev.done ## all tests, with coverage
	@.ci/tools
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include='$(CORE)'

CORE := order_monitor/order.py,order_monitor/answer.py,order_monitor/schedule.py,order_monitor/gate.py,order_monitor/decide.py,order_monitor/book.py,order_monitor/providers/znet_answer.py

check: $(VENV)/dev.done ## linters, types, layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell order_monitor tests deploy benchmarks README.md CHANGELOG.md Makefile

format: $(VENV)/dev.done ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.done ## pin what the image installs
	$(COMPILE) -o deploy/requirements.lock pyproject.toml
	$(COMPILE) --build-deps-for wheel --only-build-deps -o deploy/build.lock pyproject.toml

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-header --no-annotate \
  --no-emit-trusted-host --no-emit-find-links --allow-unsafe --upgrade

benchmark: $(VENV)/dev.done ## ratios of things measured side by side
	$(BIN)/python benchmarks/throughput.py

screenshots: $(VENV)/dev.done ## the page in every state, language and size, into build/screenshots
	@.ci/tools
	$(BIN)/python -m tests.screenshots

clean: ## take away what make made
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(VENV)/demo.done: pyproject.toml | $(BIN)/pip
	@echo "Installing order-monitor into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/dev.done: pyproject.toml | $(BIN)/pip
	@echo "Installing order-monitor and its tools into $(VENV) …"
	@$(BIN)/pip install --quiet --editable '.[demo]' --group dev
	@touch $@ $(VENV)/demo.done

$(BIN)/pip:
	@.ci/venv $(VENV)

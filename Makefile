# Everything a newcomer needs: `make run`, then `make test`. Each sets up what it needs by itself.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
EPOCHS ?= 50

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.ready .venv/.tensorflow-cloud ## Make .venv from the lock file (again when the lock changes)
.venv/.ready: .venv/.locked pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 with venv found. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv with $(PYTHON) (about two minutes, once) …"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/.tensorflow-cloud: .venv/.ready requirements-tensorflow-cloud.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-tensorflow-cloud.txt && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps tensorflow-cloud==0.1.16 && touch $@ || \
	echo "tensorflow-cloud could not be installed; only its machine and Docker objects need it."

# A browser for the tests that look at reports: one on PATH, else playwright's own, else Debian's.
.venv/.chromium: .venv/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50,<2' axe-playwright-python && \
	{ which chromium-headless-shell || which chromium || which google-chrome || \
	$(BIN)/python -m playwright install chromium-headless-shell || \
	{ test "$$(id -u)" = 0 && apt-get -q update && apt-get -qy install chromium-headless-shell; }; } \
	>.venv/chromium.log 2>&1 && touch $@ || \
	echo "No Chromium (.venv/chromium.log says why); the tests that need one are skipped."

run: setup ## Drive the whole road on the local cloud (EPOCHS=50)
	@$(BIN)/python .ci/road.py EPOCHS=$(EPOCHS)

test: setup .venv/.chromium ## Run the tests, in random order, on every core
	@$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

quick: lint ## Lint, and the tests that start no process and no TensorFlow: the inner loop
	@$(BIN)/python -m pytest --quick -q -n auto --dist worksteal -r fE

lint: setup ## Check code and notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache >.venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/python .ci/links.py --check
	@$(BIN)/python .ci/generate_notebooks.py --check
	@$(BIN)/python .ci/lint_notebooks.py

new: setup ## Make a project from your data (NAME=churn DATA=path.csv TARGET=churned KIND=image|text|series FOLDER=..)
	@$(BIN)/python -m helpers.new '$(NAME)' --data '$(DATA)' --target '$(TARGET)' --kind '$(or $(KIND),table)' --folder '$(or $(FOLDER),.)'

console: setup ## Open the console: jobs, models, endpoints, buckets and costs in the browser
	@$(BIN)/python -m helpers.console

pictures: setup .venv/.chromium ## Photograph the console after `make run`, for docs/console.md
	@$(BIN)/python .ci/pictures.py

bench: setup ## Measure against the rivals; writes docs/benchmarks.md
	@$(BIN)/python -m tests.bench

soak: setup ## The long forms of the tests
	@$(BIN)/python -m pytest -n auto --dist worksteal -m soak --override-ini "addopts=--strict-markers -ra"

stop: ## End the local cloud
	@test ! -d .local-cloud -o ! -x $(BIN)/python || $(BIN)/python -m helpers.emulator stop --state .local-cloud

clean: stop ## Remove what the project made: .venv, outputs, the local cloud's state, caches
	rm -rf .venv .venv-latest .venv-bench outputs .local-cloud dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

lock: ## Refresh requirements.lock (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --constraint .ci/colab.txt requirements.txt --output-file requirements.lock

test-latest: ## Run the tests on the newest versions of everything
	@$(PYTHON) -m venv .venv-latest
	@.venv-latest/bin/python -m pip install --quiet --upgrade -r requirements.txt
	@.venv-latest/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@SERVING_VERSION=99.0.0 .venv-latest/bin/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

google-check: setup ## Drive the road on Google, small: PROJECT=my-project (less than 1 USD, half an hour at most)
	@$(BIN)/python .ci/google_check.py PROJECT='$(PROJECT)' BUCKET='$(BUCKET)' $(if $(LOCATION),LOCATION='$(LOCATION)')

links: setup ## Write badges and bootstrap cells from pyproject.toml
	@$(BIN)/python .ci/links.py

notebooks: setup ## Write the generated notebooks (quickstart, snippets)
	@$(BIN)/python .ci/generate_notebooks.py

.PHONY: help setup run test quick lint new console pictures bench soak stop clean lock test-latest google-check links notebooks

# make run     serve examples/hello.py on all cores
# make test    run all tests
# The other targets are listed by "make help".

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
BENCH ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test trial lint format docs bench clean

help:
	@echo "make run [PORT=8080]   serve examples/hello.py on all cores"
	@echo "make test [TESTS=...]  run all tests, or those in some files"
	@echo "make trial             run all tests with Twisted's own runner"
	@echo "make lint              check format, style, types and docs"
	@echo "make format            format the code"
	@echo "make docs              build docs/_build/html"
	@echo "make bench [BENCH=...] measure beside the peers; writes the tables in README.md and docs"
	@echo "make clean             remove all that was made"

run: $(VENV)/.run
	@echo "Serving examples/hello.py at http://localhost:$(PORT)/"
	@echo "Ask how it is with $(BIN)/twisted-cluster status; Ctrl-C stops it."
	@PYTHONPATH=examples exec $(BIN)/twistd -n --pidfile= cluster \
	    --app hello:resource --listen tcp:$(PORT) --workers max

test: $(VENV)/.test
	$(BIN)/python -m pytest -q --durations=10 $(TESTS)

trial: $(VENV)/.test
	$(BIN)/trial tests

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.lint
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache \
	    .hypothesis _trial_temp* twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment.  Each stamp stands for a set of extras, so that make
# installs only after a change of what they are made from.

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "can't find $(PYTHON): install\
	 Python 3.10 or later, or name yours: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "can't use\
	 $(PYTHON): it is $$($(PYTHON) --version 2>&1), and 3.10 is needed;\
	 name a later one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "can't make a virtual\
	 environment: $(PYTHON) has no venv module; on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What must be installed anew when one of these changes.
SOURCES := pyproject.toml setup.py twisted/plugins/twisted_cluster_plugin.py

$(VENV)/.run: EXTRAS = tls,toml
$(VENV)/.test: EXTRAS = test
$(VENV)/.lint: EXTRAS = test,lint,docs
$(VENV)/.bench: EXTRAS = tls,toml,bench
$(VENV)/.run $(VENV)/.test $(VENV)/.lint $(VENV)/.bench: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

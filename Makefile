# make lab                  JupyterLab on the first notebook, from nothing but a Python of version 3.11 or newer
# make demo                 the same comparison in a terminal, on real data
# make demo DATA=polarity STRATEGIES='Serial(), AllReduce()' ARGS='--workers 2'
# make test | chaos | bench | lint | format | notebooks | clean
# make PYTHON=/path/to/python3.13 VENV=.venv-3.13 test

VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
# PyPI's torch for Linux brings CUDA, several gigabytes that neither tests nor benchmarks use: the build for CPUs comes from an index of its
# own. It is named by its "+cpu", for where pip is configured to look elsewhere, too, it would take the highest version of all. Where
# that host cannot be reached (a network with a mirror of PyPI alone), or has no such build (macOS, which needs none), the same version comes from
# the package index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
INSTALL_TORCH = $(PIP) install --quiet --no-compile --retries 0 --timeout 5 --no-deps --index-url $(TORCH_INDEX) '$(TORCH)+cpu' 2>/dev/null \
	  || $(PIP) install --quiet --no-compile '$(TORCH)'

# Files of tests that run at the same time: they wait for each other's processes more than they compute.
TESTS_AT_ONCE ?= 3
# Pages that browsers draw at the same time, beside no other tests: on two cores more of them come late.
PAGES_AT_ONCE ?= 2

# Which draws, and how many, of what befalls runs.
CHAOS_SEED ?= 15
CHAOS_RUNS ?= 100

DATA ?=
STRATEGIES ?=
ARGS ?=
export DATA STRATEGIES
# Every worker process imports the package: a quarter of its start would be compiling what was compiled before.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help lab demo test chaos bench lint format notebooks clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile | head -5

# Without a browser, or over ssh: make lab ARGS=--no-browser, and open the address it prints. Another port: ARGS=--port=9000.
lab: $(VENV)/.installed-lab
	$(PY) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks/01-compare-strategies.ipynb

demo: $(VENV)/.installed-lab
	@$(PY) -m scaleml demo $${DATA:+--data "$$DATA"} $${STRATEGIES:+--strategies "$$STRATEGIES"} $(ARGS)

# mypy reads beside the tests and is heard at their end: from an empty cache it takes most of a minute, on one core. The tests go in
# the order of tests/conftest.py, which xdist would change. In a fresh clone one process collects them before: what they import is then
# compiled once, and not by all at the same time. Status 5: ARGS chose no browser test.
test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@said=$$(mktemp); $(BIN)/mypy >"$$said" 2>&1 & mypy=$$!; failed=0; \
	trap 'kill $$mypy 2>/dev/null; rm -f "$$said"' EXIT; trap 'exit 130' INT TERM; set -x; \
	test -d tests/__pycache__ || $(PY) -m pytest --collect-only -q $(ARGS) >/dev/null 2>&1 || true; \
	$(PY) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder -m "not browser and not chaos" $(ARGS) || failed=$$?; \
	test $$failed -ne 0 || $(PY) -m pytest -n $(PAGES_AT_ONCE) --dist worksteal -m browser $(or $(ARGS),tests/lab) \
	  || test $$? -eq 5 || failed=1; \
	wait $$mypy || failed=1; set +x; cat "$$said"; exit $$failed

# Another hundred: make chaos CHAOS_SEED=7. One of them again: make chaos CHAOS_SEED=7 ARGS='-k 042'.
chaos: $(VENV)/.installed-dev
	@echo "the draws of seed $(CHAOS_SEED)"
	CHAOS_SEED=$(CHAOS_SEED) CHAOS_RUNS=$(CHAOS_RUNS) $(PY) -m pytest tests/chaos $(ARGS)
	$(PY) -m pytest tests/cluster -m chaos $(ARGS) || test $$? -eq 5

bench: $(VENV)/.installed-bench
	$(PY) -m benchmarks $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist comparison.html dask-scratch-space notebooks/.ipynb_checkpoints .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find scaleml tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# Executes them in place: what they show was measured when this was last done, best on a machine that does nothing else.
notebooks: $(VENV)/.installed-lab
	$(PY) notebooks/execute.py $(ARGS)

# clean, and the environment too: the next target installs everything again.
distclean: clean
	rm -rf $(VENV)

# Each stamp is younger than pyproject.toml exactly if what it stands for is installed.
$(VENV)/.installed-lab: pyproject.toml $(VENV)/.made
	@echo "installing scaleml and its extra lab into $(VENV): a minute or two, once"
	@$(PIP) install --quiet --editable '.[lab]'
	@touch $@

# Not compiled: most of these files are never imported, the others are compiled when they are.
$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	@echo "installing scaleml, its extra lab and the dev group into $(VENV): a minute or two, once"
	@$(INSTALL_TORCH)
	@$(PIP) install --quiet --no-compile --editable '.[lab]' --group dev
	@touch $@ $(VENV)/.installed-lab

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.made
	@echo "installing scaleml, its extra lab and the peers to measure against into $(VENV)"
	@$(INSTALL_TORCH)
	@$(PIP) install --quiet --editable '.[lab]'
	@$(PIP) install --quiet --group bench \
	  || echo "not every peer could be installed: the rows of the missing ones will say so"
	@$(PIP) install --quiet ray || echo "no ray for this Python: its rows will say so"
	@touch $@

# PYTHON chooses the interpreter; otherwise the first on PATH that is new enough. A $(VENV) that already works is kept.
$(VENV)/.made:
	@set -e; \
	good='import sys; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(PY) -c "$$good" >/dev/null 2>&1; then \
	  for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    if "$$python" -c "$$good" >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "scaleml needs Python 3.11 or newer; tried: $(or $(PYTHON),python3, python3.11 to python3.14, python)." >&2; \
	    echo "Install one, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  echo "making $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear $(VENV) || { \
	    echo "$$found cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	$(PIP) install --quiet --upgrade pip
	@touch $@

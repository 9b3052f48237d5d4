# Every target sets itself up: a virtual environment in .venv, the install, then the work. A second call reuses it.
PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
AUDIT  ?= .venv-audit
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO   ?= demo
SMOKE  ?= smoke
MINUTES ?= 15
GPU    ?= gpu
GPU_MINUTES ?= 8

# Files of tests that take seconds, from every package: what an edit is most likely to break.
FAST   := analyses angles attack_command attacks checkpoint cifar10c claims compare_command comparison config curves data examples \
          files flags gradient_angles idle_settings intervals lanczos latex marks memory_access models operator plugins rules \
          rules_convolution settings sketch sketch_pca subjects tables train_command wrapping

.PHONY: demo smoke install-test test test-fast test-slow test-lowest torture gpu audit docs lint clean

demo: $(VENV)/.installed
	$(BIN)/analyze demo --out $(DEMO)

# Every figure, table and claim of each paper on the bundled digits; what was made before is kept.
smoke: $(VENV)/.installed
	$(BIN)/analyze figures --profile smoke --latex --store $(SMOKE)/store --out $(SMOKE)/figures
	$(BIN)/analyze figures --paper pfa --profile smoke --latex --store $(SMOKE)/store --out $(SMOKE)/figures

install-test: $(VENV)/.installed-test

# A part of the tests' time goes by while a command of theirs is waited for: three workers keep two cores busy.
test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n 3

# For the edit loop: under a minute on two cores.
test-fast: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 -q $(FAST:%=tests/test_%.py)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# What means to break it, for MINUTES; the table of docs/reliability.md is printed at the end.
torture: $(VENV)/.installed-test
	$(BIN)/python -m tests.torture --minutes $(MINUTES)

# Everything that is promised on a GPU, tried and timed within GPU_MINUTES; see docs/gpu.md.
gpu: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.gpu --out $(GPU) --minutes $(GPU_MINUTES)

# What pyproject.toml allows at the least, in an environment of its own; the tests that need neither a GPU nor the peers.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 1

# Known vulnerabilities of what the install resolved; without a way to the advisories it says so, and that is no failure.
audit: $(VENV)/.installed
	@$(PYTHON) -m venv $(AUDIT)
	@$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > $(AUDIT)/frozen.txt
	@if $(AUDIT)/bin/python -m pip --disable-pip-version-check --quiet install pip-audit; \
	  then $(AUDIT)/bin/python .ci/audit.py $(AUDIT)/frozen.txt .ci/audit-ignored.txt; \
	  else echo "audit: not checked: pip-audit could not be installed"; fi

# The site, into build/site: no warning, no link that leads nowhere, nothing loaded from elsewhere. Needs no network.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs -d build/doctrees . build/site
	$(BIN)/python .ci/site.py build/site
	@echo "open build/site/index.html"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alignscape needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[test,peers]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[docs]'
	@touch $@ $(VENV)/.installed

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/lowest.txt \
	  --editable . pytest pytest-xdist hypothesis curvlinops-for-pytorch tensorboard ray
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist

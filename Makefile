# Every target sets itself up: a virtual environment in .venv, the install, then the work. A second call reuses it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO   ?= demo
SMOKE  ?= smoke

.PHONY: demo smoke test test-slow lint clean

demo: $(VENV)/.installed
	$(BIN)/analyze demo --out $(DEMO)

# Every figure, table and claim of the paper on the bundled digits; what was made before is kept.
smoke: $(VENV)/.installed
	$(BIN)/analyze figures --profile smoke --latex --store $(SMOKE)/store --out $(SMOKE)/figures

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

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

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist

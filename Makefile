# make setup    create .venv and install the exact versions of constraints.txt
# make demo     the whole story on this machine: text, encoder, models, scores, relations (about ten minutes on two cores)
# make test     lint, types and tests
# make test-browser    the report and MLflow's pages in a headless Chromium (Debian: apt-get install chromium)
# make lock     write constraints.txt anew from what pyproject.toml allows today
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-browser lint types lock clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[models,dev]'
	touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh jobs/demo.sh

test: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-browser: setup
	$(BIN)/python -m pytest -m browser tests/test_report_browser.py tests/test_mlflow_browser.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

lock:
	$(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet --disable-pip-version-check '.[models,dev]'
	.lock/bin/python -m pip freeze --exclude enpar | sed 's|+cpu||' | sort > constraints.new
	mv constraints.new constraints.txt
	rm -rf .lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

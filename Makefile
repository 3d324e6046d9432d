# `make demo` trains and compares on embedded data; `make test` runs the tests. Both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED = 1

.PHONY: help setup packages demo test tools test-timings lint check docs bench torture gpu clean

help:
	@echo "make demo    set up, then train and compare six methods on scikit-learn's digits"
	@echo "make test    set up, then run every test"
	@echo "make test-timings   run every test and keep each file's seconds as its budget"
	@echo "make check   lint, types and the quick tests"
	@echo "make tools   install what the tests drive: SLURM, FFCV, a browser, LaTeX; and build the documentation"
	@echo "make docs    build the documentation into build/site"
	@echo "make bench   measure, each bench two things in one run [NAME=...]"
	@echo "make torture   kills, flipped bits, errors, users and clocks against a store: what was lost [SECONDS=600] [SEED=0]"
	@echo "make gpu     what the harness does on this GPU [MINUTES=8] [OUT=DIR] [DATA=DIR] [RESUME=DIR]"
	@echo "make setup   only set up .venv, with everything the tests need"

# Needs no compiler and no apt package.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "Python 3.11 or 3.12 is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.figures: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[figures]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# SLURM, Chromium, LaTeX and the libraries that FFCV is compiled against: what tests drive that no wheel holds.
packages:
	@mkdir -p $(VENV)
	@$(PYTHON) -m tests.support.debian_packages $(VENV)/packages.log

$(VENV)/.ffcv: packages | $(VENV)/.tested
	@test -e $@ || { $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ffcv]' > $(VENV)/ffcv.log 2>&1 \
	  || echo "FFCV could not be installed, see $(VENV)/ffcv.log: its tests will skip"; }
	@touch $@

# Trackio asks for a Pillow below 13, and needs none for curves: it is installed beside ours, with what else it imports.
TRACKIO := trackio brotli gradio_client httptools orjson python-multipart uvloop watchfiles websockets
$(VENV)/.trackio: | $(VENV)/.tested
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(TRACKIO) \
	  || echo "Trackio could not be installed: its tests will skip"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

setup: $(VENV)/.tested

# The last line names the picture of the gains; the other figures are beside it.
demo: $(VENV)/.figures
	$(BIN)/python -m harness.sweep benchmarks/digits_pairs.yaml
	@$(BIN)/python -m harness.report benchmarks/digits_pairs.yaml --figures results/figures 2> /dev/null \
	  | sed -n 's/.*gap[.]svg$$/picture of the gains: &/p'

test: setup packages $(VENV)/.ffcv $(VENV)/.trackio
	$(BIN)/python -m pytest

# One after the other, as two of pip take no turns.
tools: setup packages
	@$(MAKE) --no-print-directory --jobs=1 docs $(VENV)/.ffcv $(VENV)/.trackio

# On a quiet machine: a test file's budget is what it takes here, and half of that more.
test-timings: setup packages $(VENV)/.ffcv $(VENV)/.trackio
	$(BIN)/python -m pytest --write-timings

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -m 'not slow' tests/unit tests/golden

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html; with search: $(BIN)/python -m mkdocs serve"

bench: setup
	$(BIN)/python -m benchmarks.perf $(NAME)

# Its test runs the same for a few seconds; users and their umasks need root.
SECONDS ?= 600
SEED ?= 0
torture: setup
	$(BIN)/python -m tests.torture --seconds $(SECONDS) --seed $(SEED) $(PART)

MINUTES ?= 8
OUT ?= build/gpu/out
gpu: setup
	$(BIN)/python -m benchmarks.gpu --minutes $(MINUTES) --out $(OUT) $(if $(DATA),--data $(DATA)) $(if $(RESUME),--resume $(RESUME))

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# make demo: install and show what it does    make test: the tests    make check: everything before a commit
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lint check test-slow test-browser test-peers bench results lock clean

demo: $(VENV)/.run
	$(BIN)/sam2vss demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

# about two hours: the boards of docs/results.md and the page; SAM 2 as segmentor: benchmarks/segmentor*.sh
results: $(VENV)/.run
	VENV=$(VENV) benchmarks/results.sh

# needs Meta's sam2 package beside ours, see docs/performance.md
test-peers: $(VENV)/.dev
	$(BIN)/pytest -m peers

test-browser: $(VENV)/.dev
	$(BIN)/pytest -m browser

bench: $(VENV)/.run
	$(BIN)/python benchmarks/vote_and_paint.py

# The newest versions that the ranges allow; torch stays where it is (edit its line by hand), so that it fits any build,
# and what only CUDA builds of torch pull in is left out.
lock: $(VENV)/.run
	$(BIN)/python -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	grep '^torch==' constraints.txt > $(VENV)/torch.txt
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(VENV)/lock/bin/uv pip compile pyproject.toml --quiet --upgrade \
	  --constraint $(VENV)/torch.txt --python-version 3.11 --extra train --extra cluster --extra rerun --extra export \
	  --extra dev --extra docs --no-header --no-annotate --output-file $(VENV)/lock.txt
	(sed -n '1p' constraints.txt; sed 's/+cpu//' $(VENV)/lock.txt | grep -vE '^(nvidia-|cuda-|triton==)') \
	  > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	touch $@

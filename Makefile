# `make demo` and `make test` are all the set-up there is: both make the environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(CURDIR)/$(VENV)/bin

.PHONY: env demo test check lint bench bench-quick bench-gpu clean

env: $(VENV)/.installed

# torch and torchvision come in one command, so that they are a matching pair; the rest follows.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The main job on a generated tree in GAPED's layout, in the folder demo/. Needs no network.
demo: env
	rm -rf demo && mkdir demo
	cd demo && $(BIN)/affectdata sample gaped gaped
	cd demo && $(BIN)/affectdata ingest gaped
	cd demo && $(BIN)/affectdata balance --recipe valence_bins.yaml
	cd demo && $(BIN)/affectdata train-check
	cd demo && $(BIN)/affectdata verify
	@echo "release: $$(ls -d demo/releases/*/)"
	@echo "verdict: $$(ls demo/checks/*/train-check.json)"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow"

test: lint
	$(BIN)/pytest -n 2 --dist loadgroup

# Runs on the CPU too, where it says that its figure is none of a GPU.
bench-gpu: env
	$(BIN)/python benchmarks/bench_gpu.py

# Against DuckDB, loops written by hand, and others at the same job (these in an environment of their own).
# A tree of real images, GAPED say, is measured as well: make bench AFFECTDATA_BENCH_ROOT=PATH
BENCHMARKS := ingest render near plan query scale dataset
PEERS      := benchmarks/.venv

bench: env $(PEERS)/.installed
	for name in $(BENCHMARKS); do AFFECTDATA_BENCH_ROOT= $(BIN)/python benchmarks/bench_$$name.py || exit 1; done
	AFFECTDATA_BENCH_ROOT= $(PEERS)/bin/python benchmarks/bench_peers.py
	if [ -n "$(AFFECTDATA_BENCH_ROOT)" ]; then \
		export AFFECTDATA_BENCH_ROOT="$(AFFECTDATA_BENCH_ROOT)"; \
		$(BIN)/python benchmarks/bench_ingest.py && $(PEERS)/bin/python benchmarks/bench_peers.py; fi

# The same on few images and rows, to see that everything runs; nothing is noted.
bench-quick: export AFFECTDATA_BENCH_ROOT :=
bench-quick: env $(PEERS)/.installed
	for name in $(BENCHMARKS) gpu; do $(BIN)/python benchmarks/bench_$$name.py --quick || exit 1; done
	$(PEERS)/bin/python benchmarks/bench_peers.py --quick

$(PEERS)/.installed: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt --editable .
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) demo build dist

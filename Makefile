# `make demo` and `make test` are all the set-up there is: both make the environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(CURDIR)/$(VENV)/bin

.PHONY: env lock demo test check lint bench bench-quick bench-gpu check-power torture docs wheel clean

env: $(VENV)/.installed

# torch and torchvision come in one command, so that they are a matching pair; the rest follows. With LOCK=1,
# exactly the versions of requirements.lock, each file checked against its hash (Linux, Python 3.11 to 3.13).
LOCK ?=
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifeq ($(LOCK),1)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
else
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
endif
	touch $@

# The server of buckets for tests, in an environment of its own: its dependencies exclude some of ours.
$(VENV)/buckets/.installed: tests/requirements-buckets.txt $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/buckets
	$(VENV)/buckets/bin/python -m pip install --quiet --requirement tests/requirements-buckets.txt
	touch $@

# Write requirements.lock with the newest versions that pyproject.toml allows; names no registry.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --output-file requirements.lock

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

test: lint $(VENV)/buckets/.installed
	$(BIN)/pytest -n 2 --dist loadgroup

# Runs on the CPU too, where it says that its figure is none of a GPU.
bench-gpu: env
	$(BIN)/python benchmarks/bench_gpu.py

# False alarms and power of the rules of train-check on real images, noted in docs/check.md:
# make check-power AFFECTDATA_GAPED_ROOT=PATH AFFECTDATA_OASIS_ROOT=PATH [PARTS="marks copies --tables"]
# Without PARTS all of it, and whole checks with planted faults. RUNS=2: a trial, which leaves the document as it is.
PARTS ?=
RUNS ?=
check-power: env
	$(BIN)/python benchmarks/check_power.py $(PARTS) $(if $(RUNS),--runs $(RUNS))
	$(if $(PARTS),,$(BIN)/python benchmarks/check_faults.py $(if $(RUNS),--runs $(RUNS)))

# Kills, flipped bits, forgeries, hostile files and commands in any order; docs/reliability.md gets the counts.
TORTURE_SECONDS ?= 300
torture: env
	$(BIN)/python -m tests.torture --seconds $(TORTURE_SECONDS)

# Against DuckDB, loops written by hand, and others at the same job (these in an environment of their own).
# A tree of real images, GAPED say, is measured as well: make bench AFFECTDATA_BENCH_ROOT=PATH
BENCHMARKS := ingest render near plan query scale dataset heads
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

# The documentation as a site in build/site; a warning is an error.
docs: env
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python docs/reference.py
	$(BIN)/zensical build --strict

# The wheel alone, without torch, in an empty environment: every command of README and docs.
wheel: env
	rm -rf build/wheel build/alone
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/alone
	build/alone/bin/pip install --quiet build/wheel/*.whl twine
	build/alone/bin/twine check --strict build/wheel/*.whl
	$(PYTHON) docs/run_commands.py build/alone/bin

clean:
	rm -rf $(VENV) $(PEERS) demo build dist

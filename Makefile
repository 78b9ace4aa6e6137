# `make demo` and `make test` work as the first command on a machine with Python 3.11 or newer, gcc and make:
# they make the environment themselves.
#
# torch is installed first and pinned, so that nothing else can pull another build. On a machine without a GPU
# name the index of torch's CPU builds, see README: make test TORCH_PIP="--index-url ..."

PYTHON ?= python3
VENV ?= .venv
TORCH_PIP ?=
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STAMP = $(VENV)/.installed
SOURCES = src tests benchmarks examples fuzz records setup.py

.PHONY: install demo test check format lint types examples bench fuzz clean

install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt src/spectraledge/stream/append.c src/spectraledge/stream/sketch.c
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed; got ' + sys.version.split()[0] + '. Name one: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_PIP) torch
	$(PIP) --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/spectraledge demo --out demo

# Two processes, one file of tests each: real kills and real training leave a core idle half of the time. One thread
# each: more only wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP) lint types test

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/bench_append.py --backend-memory torch
	$(BIN)/python benchmarks/bench_append.py --backend-memory compiled
	$(BIN)/python benchmarks/bench_append.py
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_load.py
	$(BIN)/python benchmarks/bench_probe.py
	$(BIN)/python benchmarks/bench_batched.py

# A minute for each reader of files that others wrote.
fuzz: $(STAMP)
	$(PIP) --editable ".[fuzz]"
	for target in safetensors torch dcp recording; do \
		$(BIN)/python fuzz/fuzz_$$target.py -max_total_time=60 || exit 1; done

clean:
	rm -rf $(VENV) build src/*.egg-info src/spectraledge/stream/*.so

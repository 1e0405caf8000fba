# `make train` and `make test` set everything up on a machine that has Python 3.11 or newer, and make.
PYTHON ?= python3
BIN := .venv/bin
TESTED = -m pytest -q -n 2 --dist worksteal

# If it is set, each process compiles torch, transformers and composer again: 12 of 27 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install train test test-pins test-gpu mutants families check fast bench bench-gpu speedrun lint format types link clean

install: .venv/.installed

# Current torch and mosaicml-streaming, by the overrides in pyproject.toml; algorithms/ gives the entry points.
.venv/.installed: .venv/bin/uv pyproject.toml setup.py algorithms
	$< pip install --quiet --python .venv -e ".[dev]" mosaicml-streaming
	touch $@

# What `pip install -e .` resolves to: the versions that Composer's metadata asks for.
.venv-pins/.installed: .venv-pins/bin/uv pyproject.toml setup.py algorithms
	$< pip install --quiet --no-config --python .venv-pins -e ".[dev]"
	touch $@

%/bin/uv:
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"

train: install
	$(BIN)/composer train.py yamls/mosaicbert.yaml yamls/scale/cpu.yaml

test: install
	$(BIN)/python $(TESTED)
	$(MAKE) --no-print-directory test-pins

test-pins: .venv-pins/.installed
	.venv-pins/bin/python $(TESTED) -m "not slow"

mutants: install # how many small changes of the source fail a test: make mutants ARGS="--count 100 --seed 3"
	$(BIN)/python tests/mutants $(ARGS)

families: install # the table of techniques on text families, which tests compare with what they see
	$(BIN)/python tests/support/text_families > docs/families.md

check: lint
	$(MAKE) --no-print-directory --jobs 2 types fast

fast: install
	$(BIN)/python $(TESTED) -m "not slow"

bench: install # about an hour on one core; appends to benchmarks/results
	for name in routes step alibi qat; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_$$name.py || exit 1; done
	$(BIN)/python benchmarks/plot.py

# On a machine with its own torch: pip install --no-deps --no-build-isolation -e . && make test-gpu RUN=python3
RUN ?= $(BIN)/python
OURS := $(if $(filter $(BIN)/python,$(RUN)),install)

test-gpu: $(OURS) # the tests that need a CUDA device; eight processes share it, since most of their time is compilation
	TORCHINDUCTOR_COMPILE_THREADS=1 $(RUN) -m pytest -q -n 8 --dist worksteal -m gpu -rfE tests

# About 8 minutes: bench_gpu.py starts nothing after 5. A script that fails doesn't stop the others.
bench-gpu: $(OURS)
	$(RUN) -c "import sys, torch; torch.cuda.is_available() or sys.exit('no CUDA device: NOT MEASURED')"
	failed=; for name in bench_gpu bench_anchor bench_ptq bench_qat train_gpu plot; do \
		$(RUN) benchmarks/$$name.py || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

TRACK ?= cpu
speedrun: install # the current record of a track, once: make speedrun TRACK=h100
	$(BIN)/python benchmarks/speedrun/run.py --track $(TRACK)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: install link
	$(BIN)/pyright

link: # the folders under their import name, for pyright
	mkdir -p build/link/cadenza
	for folder in algorithms attention checks cli data fused losses models options probes quantization recipe studies surgery; do ln -sfn ../../../$$folder build/link/cadenza/$$folder; done

clean:
	rm -rf .venv .venv-pins build *.egg-info

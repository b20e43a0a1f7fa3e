# loopnest: `make help` lists what there is. Nothing but python3, pip and gcc is needed.

PYTHON ?= python3
PYTEST_WORKERS ?= 2

BIN := .venv/bin
TOOLS := .venv/.tools
INSTALLED := .venv/.installed
TORCH := .venv/.torch
SOURCES := setup.py MANIFEST.in $(wildcard csrc/*.[ch] csrc/*.py csrc/include/*.h)

.PHONY: all test test-full fuzz sanitize lint exhaustive bench bench-full bench-compare bench-publish \
	bench-result bench-peers wheel-check \
	reproduce clean help

all: reproduce ## set up and compute the worked problems on every backend, with plots

# A virtual environment with everything that building, testing and plotting need.
$(TOOLS): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "setuptools>=77" "cffi>=1.17" "numpy>=2"
	touch $@

# The package, editable; again when the C side changes (Python files need no install).
$(INSTALLED): $(TOOLS) $(SOURCES)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation \
		--editable ".[test,plots,bench,lint]"
	@$(BIN)/python -c "import loopnest as ln; found = ln.available_backends(); \
		print('backends:', *found, '' if 'c' in found else '(WITHOUT the C extension: no compiler)')"
	touch $@

# 1 GB, so that the default run does without where it is not there already.
$(TORCH): $(INSTALLED)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	touch $@

reproduce: $(INSTALLED) ## the worked problems: a table each, plots in out/plots
	$(BIN)/loopnest reproduce --plots out/plots

# A whole file a worker: its compiled functions and built wheels are made once.
test: $(INSTALLED) ## all tests, then ruff and mypy
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile
	$(BIN)/ruff check .
	$(BIN)/mypy

test-full: $(INSTALLED) $(TORCH) ## all tests, and what `make test` leaves out: every case inside @njit in both dtypes, PyTorch
	LOOPNEST_FULL=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

# What may be set: CALLS=100000 SEED=7 OPS=conv2d,linear, and FILES=1000 for graphs and mutated files.
fuzz: $(INSTALLED) ## a million drawn calls on every way in, 100,000 graphs and mutated files; prints how to repeat
	LOOPNEST_FUZZ_CALLS=$(or $(FILES),100000) $(BIN)/python -m pytest \
		-n $(PYTEST_WORKERS) --dist loadfile tests/test_onnx_graphs.py tests/test_mutated_files.py
	$(BIN)/python tests/fuzz.py --calls $(or $(CALLS),1000000) --seed $(or $(SEED),1) --ops "$(OPS)"

exhaustive: $(INSTALLED) ## every float32 input of every activation, both backends: docs/accuracy.md
	$(BIN)/python tests/exhaustive.py $(if $(STEP),--step $(STEP)) $(if $(FUNCTIONS),--functions $(FUNCTIONS))

sanitize: $(INSTALLED) ## the C side under gcc's address, undefined-behaviour and thread sanitizers
	$(BIN)/python tests/sanitize.py $(PARTS)

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What may be set: ONLY=conv,gelu PEERS=torch,numba THREADS=1,all DTYPES=float64 ROUNDS=15
# COLD=1 OUT=folder NOTE="words on the page"; bench/README.md has the rest.
BENCH := $(BIN)/python bench/run.py $(if $(ONLY),--only "$(ONLY)") $(if $(PEERS),--peers "$(PEERS)") \
	$(if $(THREADS),--threads "$(THREADS)") $(if $(DTYPES),--dtypes "$(DTYPES)") \
	$(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(COLD),--cold) $(if $(OUT),--out "$(OUT)") \
	$(if $(NOTE),--note "$(NOTE)")

bench: $(INSTALLED) ## benchmark: the quick set against every peer that is installed
	$(BENCH)

bench-full: $(INSTALLED) ## benchmark: every case and size sweep; ONLY=conv as with bench
	$(BENCH) --full

bench-compare: $(INSTALLED) ## two stored runs side by side: A=run B=run
	$(BIN)/python bench/compare.py "$(A)" "$(B)"

bench-publish: $(INSTALLED) ## keep a stored run in bench/results and show it in the README: A=run
	$(BIN)/python bench/publish.py $(A)

bench-result: $(INSTALLED) ## the committed result of this machine: full run, then bench-publish
	$(BIN)/python bench/run.py --full --threads 1,all --out out/bench/result
	$(BIN)/python bench/publish.py out/bench/result

bench-peers: $(INSTALLED) ## install what the benchmark compares with (1.5 GB)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[peers]"

wheel-check: $(INSTALLED) ## build sdist and wheel, look into them, install and run them elsewhere
	$(BIN)/python -m pytest tests/test_packaging.py -v

clean: ## everything that was made, the environment included
	rm -rf .venv build dist out *.egg-info python/*.egg-info .benchmarks .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache python/loopnest/_c.* python/loopnest/*.a
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

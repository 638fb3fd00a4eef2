# Needs Python 3.11 or newer (with venv), git and make. `make env` installs the rest into .venv.

ACTIVATE := . .venv/bin/activate &&
ACCEPTED := CVE-2025-69872 # has no fix yet; docs/machines.md says why we accept it and what to do

.PHONY: help env repro ui server serve share fetch draw report test test-gpu soak bench check docs lock audit clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

env: ## install requirements.lock into .venv; other targets do it too (PYTHON=...; TORCH=cpu or cuda; EXTRAS=team)
	@sh scripts/env.sh

repro: env ## run the stages that have to run: fetch, preprocess, train, evaluate
	@$(ACTIVATE) dvc repro
	@echo "make repro: \`make ui\` shows the runs; \`. .venv/bin/activate\` gives you dvc and mlflow"

ui: PORT ?= 5000
ui: env ## start MLflow's UI, to look at the runs in a browser (PORT=5000)
	@$(ACTIVATE) exec python scripts/ui.py "$(PORT)"

server: PORT ?= 5000
server: env ## start an MLflow server for a team (PORT=5000; BACKEND=postgresql://...; ARTIFACTS=s3://...)
	@$(ACTIVATE) exec python scripts/mlflow_server.py "$(PORT)"

serve: PORT ?= 5001
serve: env ## serve the champion over HTTP, on this machine only (PORT=5001): docs/serving.md
	@$(ACTIVATE) exec python scripts/serve.py "$(PORT)"

share: env ## push results, run cache and experiments, for others to `make fetch`: docs/team.md
	@$(ACTIVATE) dvc push --run-cache --all-commits
	@$(ACTIVATE) dvc exp push --all-commits origin

fetch: env ## fetch what others have shared; nothing of it is then trained here: docs/team.md
	@$(ACTIVATE) dvc exp pull --all-commits origin
	@$(ACTIVATE) dvc fetch --run-cache --all-commits
	@$(ACTIVATE) dvc checkout --quiet --allow-missing

draw: env ## write draw.html, in which one draws and the model reads it, and open it: docs/draw.md
	@$(ACTIVATE) mnist-lstm draw --open

report: env ## write report.html: the workspace's results beside the committed ones
	@$(ACTIVATE) mnist-lstm report

test: env ## run the tests
	@$(ACTIVATE) pytest --numprocesses auto --maxprocesses 4 --maxschedchunk 1

test-gpu: env ## run the GPU's tests, and kill and resume a training (needs an NVIDIA GPU)
	@$(ACTIVATE) exec sh scripts/test_gpu.sh

soak: env ## run the tests that take many minutes, and print what they measure
	@$(ACTIVATE) pytest -m soak -s --numprocesses 0

bench: env ## run the benchmark (QUICK=1: shorter; WRITE=1: write it into docs/; DEVICE=cuda)
	@$(ACTIVATE) exec python -m benchmarks.bench --device $(or $(DEVICE),cpu) \
	    $(if $(filter-out 0,$(QUICK)),--quick) $(if $(filter-out 0,$(WRITE)),--write)

check: env ## run linter, format check and type checker, as pre-commit and CI do
	@$(ACTIVATE) ruff check
	@$(ACTIVATE) ruff format --check
	@$(ACTIVATE) mypy

docs: env ## write docs/parameters.md and params.schema.json from the types of params.yaml
	@$(ACTIVATE) python scripts/docs.py

lock: env ## compile requirements.lock again after a change of dependencies
	@$(ACTIVATE) python scripts/lock.py

audit: env ## look up the packages of requirements.lock in PyPI's list of known vulnerabilities
	@# --strict: fail also if a package could not be looked up
	@$(ACTIVATE) uv tool run --from 'pip-audit>=2.10,<3' pip-audit --strict --disable-pip \
	    --progress-spinner off --requirement requirements.lock $(ACCEPTED:%=--ignore-vuln %)

clean: ## delete what the project made; asks before it deletes results or the MLflow store
	@sh scripts/clean.sh

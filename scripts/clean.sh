#!/bin/sh
# Delete what the project made; ask before results, unfinished trainings, the MLflow store or a server's
# data are deleted. Run: make clean
#
# Files that git tracks are never touched.
set -eu
cd "$(dirname "$0")/.."

# agreed WHAT: ask at the terminal whether to delete it. Any answer but y, or no terminal, keeps it.
agreed() {
    if [ ! -t 0 ]; then
        echo "make clean: kept $1: there is no terminal to ask at"
        return 1
    fi
    printf 'make clean: remove %s too? [y/N] ' "$1"
    read -r answer || answer=
    [ "$answer" = y ] || [ "$answer" = Y ]
}

rm -rf .venv .venv-bench .bench data/raw data/sequences
rm -rf dvc_plots belief comparison.png report.html draw.html served .pull_request
rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
find src tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

results=$(git clean -ndX results)
if [ "$results" ] || [ -e .dvc/cache ]; then
    if agreed "the results of all trainings (DVC's cache, and in results/ what git ignores)"; then
        git clean -fdqX results
        rm -rf .dvc/cache .dvc/tmp
    fi
fi

if [ -e .checkpoints ] && agreed "the unfinished trainings (.checkpoints/)"; then
    rm -rf .checkpoints
fi

if [ -e server ] && agreed "the store of \`make server\` (server/)"; then
    rm -rf server
fi

if [ -e mlflow.db ] || [ -e mlruns ]; then
    if agreed "MLflow's store (mlflow.db, mlruns/)"; then
        rm -rf mlflow.db* .mlflow.* mlruns
    fi
fi

#!/usr/bin/env bash
# Train a recipe, and push its results. Run: bash scripts/train_recipe.sh RECIPE BRANCH
#
# Makes the recipe the parameters, runs the stages that have to run, pushes models and run cache to
# the DVC remote, and commits the small tables on a new branch, which it pushes to origin. Prints a
# report as Markdown. Needs the environment: `. .venv/bin/activate`.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=${1:-} branch=${2:-}
if [ ! -f "$recipe" ] || ! git check-ref-format --branch "$branch" >/dev/null 2>&1; then
    echo 'train_recipe.sh: name a recipe, such as recipes/fast.yaml, and a new branch' >&2
    exit 2
fi

git switch --quiet --create "$branch"
[ "$recipe" = params.yaml ] || cp "$recipe" params.yaml
# where the remote lacks a file that a stage reads, everything that is missing is made here
[ -n "$(dvc remote list)" ] && dvc repro --pull --allow-missing >&2 || dvc repro >&2
mnist-lstm report --markdown
git add params.yaml dvc.lock results
if git diff --cached --quiet; then
    echo 'nothing has changed' >&2
else
    git commit --quiet --message "Results of $recipe"
fi
[ -z "$(dvc remote list)" ] || dvc push --run-cache >&2
git push --quiet --set-upstream origin "$branch" >&2

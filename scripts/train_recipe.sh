#!/usr/bin/env bash
# Train a recipe, and push its results. Run: bash scripts/train_recipe.sh RECIPE BRANCH
#
# Makes the recipe the parameters, runs the stages that have to run, commits the small tables on a new
# branch, which it pushes to origin, and pushes models and run cache to the DVC remote. If the remote
# cannot be used, nothing is trained. Prints a report as Markdown. Needs the environment:
# `. .venv/bin/activate`.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=${1:-} branch=${2:-}
if [ ! -f "$recipe" ] || ! git check-ref-format --branch "$branch" >/dev/null 2>&1; then
    echo 'train_recipe.sh: name a recipe, such as recipes/fast.yaml, and a new branch' >&2
    exit 2
fi

if [ -z "$(dvc remote list)" ]; then
    echo 'The project has no DVC remote: the branch gets the tables of the results, but no models.'
    echo
else
    python scripts/try_remote.py
fi
git switch --quiet --create "$branch"
[ "$recipe" = params.yaml ] || cp "$recipe" params.yaml
# where the remote lacks a file that a stage reads, everything that is missing is made here
[ -n "$(dvc remote list)" ] && dvc repro --pull --allow-missing >&2 || dvc repro >&2
failed=0
mnist-lstm report --markdown || failed=1 # the results are pushed all the same
git add params.yaml dvc.lock results
if git diff --cached --quiet; then
    echo 'nothing has changed' >&2
else
    git commit --quiet --message "Results of $recipe"
fi
# git first: the branch is small, and has the recipe and the tables. If the remote then fails, or the
# time is up, the models can be made again. Each push is tried, whatever becomes of the other.
git push --quiet --set-upstream origin "$branch" >&2 || failed=1
[ -z "$(dvc remote list)" ] || dvc push --run-cache >&2 || {
    echo "train_recipe.sh: the DVC remote lacks models of $branch, see above: run \`dvc push\` here," \
        'or `dvc repro` on the branch, which makes them again' >&2
    failed=1
}
exit $failed

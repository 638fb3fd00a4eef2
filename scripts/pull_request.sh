#!/usr/bin/env bash
# What a change does to the results of the quick recipe. Run: bash scripts/pull_request.sh BASE
#
# Runs the quick recipe with the code of the commit BASE, then with that of the present commit, and
# prints a report about both as Markdown. What a DVC remote has is not computed again. It works in a
# clone, in the folder .pull_request. Needs the environment: `. .venv/bin/activate`.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(git rev-parse --verify --quiet "${1:-}^{commit}") ||
    { echo 'pull_request.sh: name the commit that the change is based on' >&2; exit 2; }
change=$(git rev-parse HEAD)

rm -rf .pull_request
project=.pull_request/$(git rev-parse --show-prefix) # it may be in a folder of its repository
git clone --quiet --no-checkout "$(git rev-parse --show-toplevel)" .pull_request
mkdir -p "$project/.dvc"
if [ -f .dvc/config.local ]; then # it may have the remote's credentials
    cp .dvc/config.local "$project/.dvc/"
fi
cd "$project"

repro() { # its lines go to stderr
    cp recipes/quick.yaml params.yaml
    # where the remote lacks a file that a stage reads, everything that is missing is made here
    [ -n "$(dvc remote list)" ] && dvc repro --pull --allow-missing >&2 || dvc repro >&2
}

git checkout --quiet --detach "$base"
repro
git add --all
git -c user.name=report -c user.email=report@localhost -c commit.gpgsign=false commit --quiet \
    --no-verify --allow-empty --message 'results of the quick recipe before the change'
git read-tree --reset -u "$change" # the files; HEAD stays, so that the report compares with it
repro
mnist-lstm report --markdown

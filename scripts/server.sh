#!/bin/sh
# Make a folder that has only what serving a model needs: a virtual environment with PyTorch for
# processors. Run: sh scripts/server.sh DIR (needs uv)
#
# Versions and checksums are those of requirements.lock. PyTorch for processors is not in it: it comes
# from PyTorch's own index, in the version of the lock.
set -eu
cd "$(dirname "$0")/.."
into=$1

# what `mnist_lstm.serving.app` imports, and what those need: tests/test_container.py checks the list
packages='anyio click filelock fsspec h11 idna jinja2 markupsafe mpmath networkx numpy pillow
prometheus-client safetensors scipy setuptools starlette sympy typing-extensions uvicorn'

uv venv --quiet "$into"
awk -v names=" $(echo $packages) " '/^[a-z]/ { name = $1; sub(/==.*/, "", name); keep = index(names, " " name " ") } keep' \
    requirements.lock >"$into/packages.txt"
uv pip sync --quiet --python "$into" --require-hashes "$into/packages.txt"
uv pip install --quiet --python "$into" --no-deps ${TORCH_FROM:---torch-backend cpu} \
    "$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)"
uv pip install --quiet --python "$into" --no-deps .
# a third of PyTorch is for those who build extensions of it
rm -rf "$into"/lib/python*/site-packages/torch/include "$into"/lib/python*/site-packages/torch/lib/*.a

#!/bin/sh
# Run the GPU's tests, then kill a training on the GPU, resume it, and compare the weights.
# Run: make test-gpu. If it fails, please send its output. The project stays as it is: the pipeline
# runs in a temporary clone of the present commit, on scikit-learn's digits.
set -eu
cd "$(dirname "$0")/.."

python - <<'EOF' || exit 1
import platform
import sys

import torch

print(f"python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}")
if not torch.cuda.is_available():
    sys.exit("make test-gpu: torch finds no NVIDIA GPU here; `nvidia-smi` tells what the driver does")
for number in range(torch.cuda.device_count()):
    about = torch.cuda.get_device_properties(number)
    print(f"cuda:{number}: {about.name}, {about.total_memory / 1e9:.0f} GB")
print(f"cuDNN {torch.backends.cudnn.version()}, CUDA {torch.version.cuda}")
EOF
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=driver_version,clocks.max.sm,power.limit --format=csv,noheader
fi

python -m pytest -m "gpu and not soak" --numprocesses 0 -q tests/test_gpu.py tests/learning/test_golden.py

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
prefix=$(git rev-parse --show-prefix) # the project may be in a folder of its repository
git clone --quiet "$(git rev-parse --show-toplevel)" "$folder/whole"
cd "$folder/whole/$prefix"
# enough steps for a kill in the middle, and the same recipe for both trainings
sed -e 's/^  steps: .*/  steps: 12000/' -e 's/^  device: .*/  device: cuda/' \
    recipes/quick.yaml >params.yaml
git -c user.name=test -c user.email=test@example.com commit --quiet --all --message recipe
git clone --quiet "$folder/whole" "$folder/killed"
unset MLFLOW_TRACKING_URI # the clone's own store
sha() { sha256sum results/train/model.safetensors | cut -c1-64; }

python -m dvc repro --quiet evaluate
whole=$(sha)
echo "trained without a stop:  $whole"

cd "$folder/killed/$prefix"
python -m dvc repro --quiet preprocess
setsid python -m dvc repro train >train.log 2>&1 &
group=$!
for _ in $(seq 600); do
    if grep -q 'step 2000' train.log || ! kill -0 "$group" 2>/dev/null; then break; fi
    sleep 0.1
done
kill -s KILL -- "-$group" 2>/dev/null || true
wait "$group" 2>/dev/null || true
python -m dvc repro train 2>&1 | grep 'its last checkpoint' ||
    { echo "make test-gpu: the training did not continue from a checkpoint"; cat train.log; exit 1; }
killed=$(sha)
echo "killed, then resumed:    $killed"
if [ "$whole" != "$killed" ]; then
    echo "make test-gpu: the weights differ"
    exit 1
fi
echo "make test-gpu: all passed, the weights are the same to the bit"

#!/bin/sh
# Measure metarl on the GPU of this machine, in under six minutes: worlds, collection, updates, and two short trainings.
#
#   benchmarks/gpu.sh [FILE]         one JSON file, gpu.json by default, written anew after each part
#   DEVICE=cpu benchmarks/gpu.sh     a dry run with tiny sizes, on Warp's CPU device
#   PARTS="pearl maml" ...           some parts only; SECONDS_IN_ALL=360 and TRAIN_SECONDS=50 are other settings.
#                                    Those from train-pearl on are not begun where less than 20 s are left:
#   PARTS="train-pearl deterministic pearl-compiled" TRAIN_SECONDS=200 SECONDS_IN_ALL=600 benchmarks/gpu.sh
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" benchmarks/gpu.py all "${1:-gpu.json}"

#!/usr/bin/env bash
# Holds a paper's training against PyTorch's in one run, side by side, and writes results/benchmarks/PAPER.json.
#   scripts/bench/run.sh lenet [--rounds N] [--seconds N] [--out FILE]
# Let nothing else run meanwhile. It needs a Python with PyTorch and torchvision (10 GB, made by the first run) and takes 10 minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

paper=${1-}
[ "$paper" = lenet ] || stop 2 "usage: scripts/bench/run.sh lenet [--rounds N] [--seconds N] [--out FILE]"
shift

cd "$root"
scripts/setup.sh
scripts/get_data.sh mnist
python=$(scripts/bench/setup.sh | tail -1)
unset LIBTORCH # as in scripts/run.sh
cargo build --release -p lenet -p repro-core --bin lenet --example idle
exec "$python" scripts/bench/run.py --data "$data_root/mnist" "$@"

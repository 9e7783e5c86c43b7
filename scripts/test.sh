#!/usr/bin/env bash
# Sets up what is missing, fetches MNIST, and runs all tests, documentation's examples among them.
#   scripts/test.sh [ARGUMENT…]      arguments go to `cargo test`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
scripts/get_data.sh mnist
unset LIBTORCH # as in run.sh
# `cargo test` alone builds the binaries of those packages only whose own tests run them.
cargo build --release --workspace --bins
exec cargo test --release --workspace --no-fail-fast "$@"

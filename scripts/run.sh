#!/usr/bin/env bash
# Sets up what is missing, fetches the data that the config names, builds in release, and runs the paper's binary.
#   scripts/run.sh PAPER ARGUMENT…       arguments go to the binary
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

paper=${1-}
if ! is_paper "$paper"; then
    echo "usage: scripts/run.sh PAPER [ARGUMENT…]    papers: $(papers)" >&2
    echo "   eg: scripts/run.sh lenet --config experiments/lenet/lenet5_dist.yaml seed=1" >&2
    exit 2
fi
shift

"$root/scripts/setup.sh"
for name in $(data_sets "$@"); do "$root/scripts/get_data.sh" "$name"; done

# The link that set-up made names the same libtorch; built through it, plain cargo commands find the build up to date.
unset LIBTORCH
(cd "$root" && cargo build --release --package "$paper")
exec "${CARGO_TARGET_DIR:-$root/target}/release/$paper" "$@"

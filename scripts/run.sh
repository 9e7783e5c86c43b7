#!/usr/bin/env bash
# Sets up what is missing, fetches the data that the config names, builds in release, and runs the paper's binary.
#   scripts/run.sh PAPER ARGUMENT…       arguments go to the binary
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

paper=${1-}
# A paper is a crate with a binary.
papers=$(cd "$root/crates" && dirname -- */src/main.rs | xargs dirname | xargs)
if [ -z "$paper" ] || [ ! -f "$root/crates/$paper/src/main.rs" ]; then
    echo "usage: scripts/run.sh PAPER [ARGUMENT…]    papers: $papers" >&2
    echo "   eg: scripts/run.sh lenet --config experiments/lenet/lenet5_dist.yaml seed=1" >&2
    exit 2
fi
shift

# data_sets ARGUMENT…: the set named by data=… or data.name=…, else by the config (`data/NAME` in its defaults, or its own `name:`
# under `data:`), if scripts/get_data.sh knows it. The binary reads the config in earnest, and says what is wrong with it.
data_sets() {
    local config="" chosen="" before="" argument
    for argument in "$@"; do
        case $argument in
        data=* | data.name=*) chosen=${argument#*=} ;;
        # The user's own folder: nothing to fetch.
        data.root=*) return ;;
        --config=*) config=${argument#*=} ;;
        *) [ "$before" != --config ] || config=$argument ;;
        esac
        before=$argument
    done
    if [ -z "$chosen" ] && [ -f "$config" ]; then
        chosen=$(sed -n '/^defaults:/,/^[^ -]/ s/.*data\/\([a-z0-9_]*\).*/\1/p; /^data:/,/^[^ ]/ s/^ \+name: *\([a-z0-9_]*\).*/\1/p' \
            "$config" | tail -1)
    fi
    [[ " $("$root/scripts/get_data.sh" --list) " != *" $chosen "* ]] || echo "$chosen"
}

"$root/scripts/setup.sh"
for name in $(data_sets "$@"); do "$root/scripts/get_data.sh" "$name"; done

# The link that set-up made names the same libtorch; built through it, plain cargo commands find the build up to date.
unset LIBTORCH
(cd "$root" && cargo build --release --package "$paper")
exec "${CARGO_TARGET_DIR:-$root/target}/release/$paper" "$@"

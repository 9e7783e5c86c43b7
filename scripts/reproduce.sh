#!/usr/bin/env bash
# Re-makes a table of a paper: sets up what is missing, fetches the data, trains every row with every seed that has no evidence yet,
# copies the results to results/runs, and writes results/PAPER.md from them. If you stop it, the same command continues where it was.
#   scripts/reproduce.sh PAPER/TABLE [--seeds N] [--row R]     seeds 1 to N (3; of a deterministic row seed 1 alone); R: a row, or one configuration
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

table=${1-}
paper=${table%%/*}
if ! is_paper "$paper" || [[ $table != */?* ]]; then
    echo "usage: scripts/reproduce.sh PAPER/TABLE [--seeds N] [--row R]    papers: $(papers)" >&2
    echo "   eg: scripts/reproduce.sh lenet/figure9 --row lenet5 --seeds 2" >&2
    exit 2
fi

# Said before minutes are spent on building; `report` says what else is wrong.
tables=$(sed -n 's/^  - name: //p' "$root/results/$paper.yaml" | xargs)
[[ " $tables " == *" ${table#*/} "* ]] || stop 2 "there is no table $table; tables of $paper: $tables"

command="scripts/reproduce.sh $*"
# cut_off CODE: what is trained is saved by then.
cut_off() {
    echo "stopped; the same command continues: $command" >&2
    exit "$1"
}
trap 'cut_off 130' INT
trap 'cut_off 143' TERM

"$root/scripts/setup.sh"
unset LIBTORCH # as in run.sh
cd "$root"
cargo build --release --package "$paper" --package report
binaries=${CARGO_TARGET_DIR:-target}/release
report=$binaries/report

# one CONFIG SEED: trains in runs/PAPER/CONFIG/seedSEED, or goes on there, and takes the result into the evidence and the pages.
one() {
    local file=experiments/$paper/$1.yaml run=runs/$paper/$1/seed$2 name
    for name in $(data_sets --config "$file"); do scripts/get_data.sh "$name" || return; done
    "$binaries/$paper" train --config "$file" "seed=$2" --out "$run" --resume && "$report" add "$run" && "$report" write
}

# Names that the table does not have end here, with those that it has.
todo=$("$report" todo "$@")
failed=""
while read -r config seed; do
    [ -n "$config" ] || continue
    echo "=== $config, seed $seed"
    code=0
    one "$config" "$seed" </dev/null || code=$?
    case $code in
    0) ;;
    130 | 143) cut_off $code ;;
    # One row that fails does not keep the others from being run.
    *) failed+=" $config/seed$seed" ;;
    esac
done <<<"$todo"

"$report" write
echo
"$report" show "$table"
[ -z "$failed" ] || stop 1 "these failed (see above), and the same command tries them again:$failed; where the configuration has changed" \
    "since a run began, delete its folder runs/$paper/CONFIG/seedN first"

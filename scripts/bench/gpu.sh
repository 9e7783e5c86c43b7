#!/usr/bin/env bash
# Every paper on an NVIDIA GPU, for a machine that has one for a short time, and neither Rust nor a network: does it train there, does it give
# the CPU's answers, how long is its step beside PyTorch's, eager and compiled?
#   scripts/bench/gpu.sh [--bin DIR] [--out DIR] [--minutes N] [--dry-run]
# --bin: the built binaries (target/release); --out: where runs and gpu.jsonl go (runs/gpu); --minutes: of all together (20).
# --dry-run: the same on the CPU with a few steps, to see that nothing is missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Paper, its network for the step's time, and the peer's name of it in gpu_peer.py (- : none). Every later paper adds its line.
PAPERS=(
    "lenet lenet5_modern -"
    "alexnet cnn_relu -"
    "resnet resnet18_cifar resnet18_cifar"
)

bin=$root/target/release out=$root/runs/gpu minutes=20 device=cuda steps=200 batch=128
while [ $# -gt 0 ]; do
    case $1 in
    --bin) bin=$(realpath "$2") && shift ;;
    --out) out=$(realpath -m "$2") && shift ;;
    --minutes) minutes=$2 && shift ;;
    --dry-run) device=cpu steps=2 batch=16 ;;
    *) echo "usage: scripts/bench/gpu.sh [--bin DIR] [--out DIR] [--minutes N] [--dry-run]" >&2 && exit 2 ;;
    esac
    shift
done
ends=$((SECONDS + 60 * minutes))
cd "$root"
mkdir -p "$out"

# The torch of the machine's Python, where it has one: its libraries serve our binaries, too.
if lib=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))' 2>/dev/null); then
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    peers=true
else
    peers=false
fi

# tell PAPER PART STATUS JSON: a line of gpu.jsonl.
tell() {
    printf '{"paper": "%s", "part": "%s", "device": "%s", "status": "%s", "found": %s}\n' "$1" "$2" "$device" "$3" "${4:-null}" |
        tee -a "$out/gpu.jsonl"
}

# part PAPER NAME COMMAND…: its last line of output as a finding, within the time that is left.
part() {
    local paper=$1 name=$2 left=$((ends - SECONDS)) said
    shift 2
    if [ $left -le 5 ]; then
        tell "$paper" "$name" "not run: out of time"
    elif said=$(timeout -k 5 "$left" "$@" 2>"$out/$paper-$name.log"); then
        tell "$paper" "$name" done "$(tail -1 <<<"$said")"
    else
        tell "$paper" "$name" failed
        failed=true
    fi
}

# same A B: whether two evaluations agree: losses to 1e-3 of their size, since sums are taken in other orders.
same() {
    python3 -c '
import json, sys
a, b = (json.loads(open(path).read().splitlines()[-1])["metrics"]["test/loss"] for path in sys.argv[1:])
print(json.dumps({"cpu": a, "device": b}))
sys.exit(abs(a - b) > 1e-3 * abs(a))' "$@"
}

failed=false
rm -f "$out/gpu.jsonl"
for line in "${PAPERS[@]}"; do
    read -r paper network peer <<<"$line"
    smoke="experiments/$paper/smoke.yaml"
    rm -rf "${out:?}/$paper"
    part "$paper" train "$bin/$paper" --config "$smoke" --device $device --out "$out/$paper" -q --json
    for where in cpu $device; do
        "$bin/$paper" eval --config "$smoke" --weights "$out/$paper" --device $where --json >"$out/$paper-$where.json" 2>/dev/null || true
    done
    part "$paper" parity same "$out/$paper-cpu.json" "$out/$paper-$device.json"
    for precision in f32 bf16; do
        part "$paper" "step-$precision" "$bin/$paper" bench --config "$smoke" --device $device --steps $steps \
            model.name="$network" batch_size=$batch compute.precision=$precision
        if [ "$peer" = - ]; then
            tell "$paper" "peer-$precision" "not run: no peer of this network"
        elif ! $peers; then
            tell "$paper" "peer-$precision" "not run: no torch"
        else
            part "$paper" "peer-$precision" python3 scripts/bench/gpu_peer.py "$peer" --device $device --steps $steps --batch $batch --precision $precision
            part "$paper" "compiled-$precision" python3 scripts/bench/gpu_peer.py "$peer" --device $device --steps $steps --batch $batch --precision $precision --compile
        fi
    done
done
if $failed; then
    echo "a part failed; its messages are in $out" >&2
    exit 1
fi

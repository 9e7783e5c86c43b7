#!/usr/bin/env bash
# Every paper on an NVIDIA GPU, for a machine that is there for a short time and has neither Rust nor a network: does it train there, does it
# answer as the CPU does (which the tests hold against the fixtures), how long is its step, and how long is PyTorch's, eager and compiled?
#   scripts/bench/gpu.sh [--bin DIR] [--out DIR] [--minutes N] [--dry-run]
# --bin: the built binaries (target/release); --out: a folder of its own for runs and gpu.jsonl (runs/gpu); --minutes: for all together (20).
# --dry-run: the same on the CPU in a few steps, to see that nothing is missing.
# Python is needed; where it has torch, its CUDA libraries serve our binaries, too, and its step is timed beside ours.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Paper | peer in gpu_peer.py, - for none | what `bench` changes in the smoke experiment. Each paper adds its line.
PAPERS=(
    "lenet | - |"
    "alexnet | cifar_cnn |"
    "resnet | resnet18_cifar | model.name=resnet18_cifar"
    "simclr | - | model.name=simclr_resnet18_cifar"
    "vit | - | model.name=vit_tiny_patch4_32"
    "mae | - | model.name=mae_vit_tiny_patch4_32"
    "detr | - |"
    "yolo | - | model.image_size=128"
    "ddpm | - | model.name=ddpm_cifar10"
)

bin=$root/target/release out=$root/runs/gpu minutes=20 device=cuda steps=200 batch=128
while [ $# -gt 0 ]; do
    case $1 in
    --bin) bin=$(realpath "$2") && shift ;;
    --out) out=$(realpath -m "$2") && shift ;;
    --minutes) minutes=$2 && shift ;;
    --dry-run) device=cpu steps=1 batch=2 ;;
    *) echo "usage: scripts/bench/gpu.sh [--bin DIR] [--out DIR] [--minutes N] [--dry-run]" >&2 && exit 2 ;;
    esac
    shift
done
ends=$((SECONDS + 60 * minutes))
cd "$root"
mkdir -p "$out"
peers=false
if lib=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))' 2>/dev/null); then
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    peers=true
fi

# tell PAPER PART STATUS [JSON]: a line of gpu.jsonl.
tell() {
    printf '{"paper": "%s", "part": "%s", "device": "%s", "status": "%s", "found": %s}\n' "$1" "$2" "$device" "$3" "${4:-null}" |
        tee -a "$out/gpu.jsonl"
}

# part PAPER NAME COMMAND…: its last line of output is what was found; within the time that is left.
failed=false
part() {
    local paper=$1 name=$2 left=$((ends - SECONDS)) said
    shift 2
    if [ $left -le 5 ]; then
        tell "$paper" "$name" "not run: out of time"
    elif said=$(timeout -k 5 "$left" "$@" 2>"$out/$paper-$name.log"); then
        tell "$paper" "$name" "done" "$(tail -1 <<<"$said")"
    else
        tell "$paper" "$name" "failed"
        failed=true
    fi
}

# The test loss of one run's weights on the CPU and on the device (of detectors, which have none, the average precision); sums are taken in other
# orders, hence a thousandth.
cat >"$out/parity.py" <<'PYTHON'
import json
import subprocess
import sys

binary, config, weights, device = sys.argv[1:]
loss = {}
for where in ["cpu", device]:
    command = [binary, "eval", "--config", config, "--weights", weights, "--device", where, "--json"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    metrics = json.loads(said)["metrics"]
    loss[where] = metrics.get("test/loss", metrics.get("test/AP"))
print(json.dumps(loss))
sys.exit(abs(loss["cpu"] - loss[device]) > 1e-3 * abs(loss["cpu"]))
PYTHON

rm -f "$out/gpu.jsonl"
for line in "${PAPERS[@]}"; do
    IFS='|' read -r paper peer changes <<<"$line"
    read -r paper <<<"$paper"
    read -r peer <<<"$peer"
    read -ra changes <<<"$changes"
    smoke=experiments/$paper/smoke.yaml
    rm -rf "${out:?}/$paper"
    part "$paper" train "$bin/$paper" train --config "$smoke" --device $device --out "$out/$paper" -q --json
    part "$paper" parity python3 "$out/parity.py" "$bin/$paper" "$smoke" "$out/$paper" $device
    for precision in f32 bf16; do
        part "$paper" "step-$precision" "$bin/$paper" bench --config "$smoke" --device $device --steps $steps --json \
            batch_size=$batch compute.precision=$precision "${changes[@]}"
        for form in eager compiled; do
            if [ "$peer" = - ]; then
                tell "$paper" "peer-$form-$precision" "not run: no peer"
            elif ! $peers; then
                tell "$paper" "peer-$form-$precision" "not run: no torch"
            else
                part "$paper" "peer-$form-$precision" python3 scripts/bench/gpu_peer.py "$peer" $form --device $device --steps $steps \
                    --batch $batch --precision $precision
            fi
        done
    done
done
if $failed; then
    echo "a part failed; what it said is in $out" >&2
    exit 1
fi

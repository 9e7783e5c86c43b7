#!/usr/bin/env bash
# Holds a paper's training against PyTorch's in one run, side by side, and writes results/benchmarks/PAPER.json.
#   scripts/bench/run.sh lenet  [--rounds N] [--seconds N] [--out FILE]    a training step
#   scripts/bench/run.sh resnet [--rounds N] [--steps N] [--photos IMAGENETTE] [--out FILE]    a training step, augmentation included
#   scripts/bench/run.sh simclr [--rounds N] [--steps N] [--out FILE]      a step of pre-training, both views included; the views alone
#   scripts/bench/run.sh vit    [--rounds N] [--steps N] [--photos FOLDER] [--bf16] [--out FILE]    a step of ViT and of MAE
#   scripts/bench/run.sh loader [--rounds N] [--batch N] [--out FILE]      photos to batches, against torchvision; by libjpeg-turbo, too, where
#                                                                          cmake and nasm are
#   scripts/bench/run.sh boxes  --coco FOLDER [--annotations FILE --photos FOLDER] [--rounds N] [--out FILE]    photos with boxes to batches
#   scripts/bench/run.sh detections [--rounds N] [--out FILE]              boxes to COCO's numbers, against pycocotools
#   scripts/bench/run.sh detr   [--rounds N] [--steps N] [--out FILE]      a step of DETR, against transformers; the matching, against SciPy
#   scripts/bench/run.sh ddpm   [--rounds N] [--steps N] [--bf16] [--out FILE]    a step of DDPM and sampling, against diffusers
# Let nothing else run meanwhile. It needs a Python with PyTorch and torchvision (10 GB, made by the first run) and takes 10 minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

paper=${1-}
case $paper in
lenet) data=mnist run=run.py ;;
resnet) data=cifar10 run=run_resnet.py ;;
simclr) data=cifar10 run=run_simclr.py ;;
vit) data=cifar10 run=run_vit.py ;;
loader) data=imagenette run=run_loader.py ;;
boxes) data="" run=run_boxes.py ;;
detections) data="" run=run_detections.py ;;
detr) data="" run=run_detr.py ;;
ddpm) data=mnist run=run_ddpm.py ;;
*) stop 2 "usage: scripts/bench/run.sh lenet|resnet|simclr|vit|loader|boxes|detections|detr|ddpm [--rounds N] [--out FILE] […]" ;;
esac
shift

cd "$root"
scripts/setup.sh
[ -z "$data" ] || scripts/get_data.sh "$data"
python=$(scripts/bench/setup.sh | tail -1)
unset LIBTORCH # as in scripts/run.sh
if [ "$paper" = detr ] && ! "$python" -c 'import scipy, transformers' 2>/dev/null; then
    "$python" -m pip install --disable-pip-version-check --quiet transformers==5.24.0 scipy ||
        stop 1 "pip could not install transformers and SciPy (see above); run this again when that is mended"
fi
if [ "$paper" = vit ] && ! "$python" -c 'import timm, transformers' 2>/dev/null; then
    {
        "$python" -m pip install --disable-pip-version-check --quiet transformers==5.24.0 &&
            "$python" -m pip install --disable-pip-version-check --quiet --no-deps timm==1.0.31
    } ||
        stop 1 "pip could not install timm and transformers (see above); run this again when that is mended"
fi
if { [ "$paper" = detections ] || [ "$paper" = boxes ]; } && ! "$python" -c 'import pycocotools' 2>/dev/null; then
    "$python" -m pip install --disable-pip-version-check --quiet --no-deps pycocotools==2.0.11 ||
        stop 1 "pip could not install pycocotools (see above); run this again when that is mended"
fi
if [ "$paper" = ddpm ] && ! "$python" -c 'import diffusers' 2>/dev/null; then
    "$python" -m pip install --disable-pip-version-check --quiet diffusers==0.42.1 ||
        stop 1 "pip could not install diffusers (see above); run this again when that is mended"
fi
if [ "$paper" = loader ] && command -v cmake >/dev/null && command -v nasm >/dev/null; then
    # The decoder that is no default: built first, under a name of its own.
    built=${CARGO_TARGET_DIR:-target}/release/examples
    cargo build --release -p repro-core --example loader --features turbojpeg
    cp "$built/loader" "$built/loader-turbojpeg"
    set -- --turbojpeg "$built/loader-turbojpeg" "$@"
fi
cargo build --release -p lenet -p resnet -p simclr -p vit -p mae -p detr -p ddpm -p repro-core --bin lenet --bin resnet --bin simclr --bin vit --bin mae --bin detr --bin ddpm --example matcher --example idle --example loader \
    --example views --example scenes --example detections
exec "$python" scripts/bench/$run --data "$data_root/$data" "$@"

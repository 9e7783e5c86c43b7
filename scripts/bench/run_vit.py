"""Our training of ViT and MAE and PyTorch's in turn, round after round: called by run.sh, which builds and fetches first.

Ours reads, augments and centres its pictures in every measurement; on CIFAR-10 the peer has them at hand, centred and not augmented.
"""

import argparse
import pathlib
import sys

from common import BUILT, THREADS, measure, ratio, run, write

VIT, MAE = "experiments/vit/cifar10_d96_50k.yaml", "experiments/mae/cifar10_d96_e40.yaml"
PHOTO = "experiments/vit/finetune_folder.yaml"
ADAMW = "optim={kind: adamw, base_lr: 0.001, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.05}"
DECODER = "model.decoder={width: 192, depth: 4, heads: 3}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--photos", type=pathlib.Path, help="a folder of photos by class with train/ and val/; without it photos are left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--bf16", action="store_true", help="in bfloat16, too: for processors that have it")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    def ours(paper, config, batch, steps, precision, *words):
        return [str(BUILT / paper), "bench", "--config", config, "--device", "cpu", "--steps", str(steps + 1), f"compute.threads={THREADS}",
                f"batch_size={batch}", f"compute.precision={precision}", *words]  # fmt: skip

    def peer(kind, batch, steps, precision, data):
        return [sys.executable, "scripts/bench/vit.py", kind, "--data", str(data), "--batch", str(batch), "--steps", str(steps),
                "--precision", precision]  # fmt: skip

    measures, version, ours_by_kind = [], None, {}
    for precision in ["f32", "bf16"] if args.bf16 else ["f32"]:
        word = {"f32": "", "bf16": ", bfloat16"}[precision]
        sides = [
            ("vit", "timm", f"ViT-Ti, 32 pixels in patches of 4, CIFAR-10, batch 128{word}", 128, args.steps, args.data,
             ours("vit", VIT, 128, args.steps, precision, "model.name=vit_tiny_patch4_32", "clip=null")),
            ("mae", "transformers", f"MAE of ViT-Ti, 32 pixels in patches of 4, CIFAR-10, batch 128{word}", 128, args.steps, args.data,
             ours("mae", MAE, 128, args.steps, precision, "model.name=mae_vit_tiny_patch4_32", DECODER)),
        ]  # fmt: skip
        if args.photos:
            steps = max(2, args.steps // 2)
            command = ours("vit", PHOTO, 32, steps, precision, f"data.root={args.photos.resolve()}", "model.name=vit_tiny_patch16_224",
                           ADAMW, "clip=null", "view.train.scale=[0.08, 1]")  # fmt: skip
            sides.append(("photo", "timm, torchvision and DataLoader", f"ViT-Ti at 224 pixels, photos from files, batch 32{word}", 32, steps, args.photos, command))
        speeds = {kind: {"repro": [], name: []} for kind, name, *_ in sides}
        for at in range(args.rounds):
            for kind, name, config, batch, steps, data, command in sides:
                speeds[kind]["repro"].append(run(command)[2]["examples_per_second"])
                said = run(peer(kind, batch, steps, precision, data))[2]
                speeds[kind][name].append(said["examples_per_second"])
                version = said["torch"]
                print(f"{config}, round {at + 1} of {args.rounds}: {[round(s[-1], 1) for s in speeds[kind].values()]}", file=sys.stderr)
        factor = ratio(speeds["mae"]["repro"], speeds["vit"]["repro"])
        notes = {"mae": f"A step of MAE's pre-training sees {factor:.2f} times as many pictures a second as one of ViT's training at the same size."}
        for kind, _, config, *_ in sides:
            measures.append(measure("training speed", config, "images/s", "higher", 1, speeds[kind], notes.get(kind, "")))
    write(args.out, "vit", f"PyTorch {version}, eager, fused AdamW", measures)


main()

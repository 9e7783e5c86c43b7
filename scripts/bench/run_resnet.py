"""Our training of ResNet and PyTorch's in turn, round after round: called by run.sh, which builds and fetches first.

Ours reads, augments and centres its pictures in every measurement. On CIFAR-10 it is held against PyTorch with the pictures at hand and
without augmentation, and against torchvision's transforms behind a DataLoader; on photos against PyTorch with its batches at hand.
"""

import argparse
import pathlib
import sys

from common import BUILT, KEEP_MEMORY, THREADS, measure, run, write

LAYOUTS = ("channels_last", "contiguous")
CIFAR, PHOTO = "experiments/resnet/resnet20_short.yaml", "experiments/resnet/imagenette_e5.yaml"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--photos", type=pathlib.Path, help="Imagenette; without it ResNet-18 at 224 pixels is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    def ours(config, batch, steps, *words):
        return [str(BUILT / "resnet"), "bench", "--config", config, "--device", "cpu", "--steps", str(steps), f"compute.threads={THREADS}",
                f"batch_size={batch}", *words]  # fmt: skip

    def peer(kind, batch, steps, layout):
        return [sys.executable, "scripts/bench/resnet.py", kind, "--data", str(args.data), "--batch", str(batch), "--steps", str(steps),
                "--layout", layout]  # fmt: skip

    def fastest(kind, batch):
        speed = lambda layout: max(run(peer(kind, batch, 4, layout))[2]["examples_per_second"] for _ in range(2))
        return max(LAYOUTS, key=speed)

    def bench(config, batch, steps, command, peers):
        """A measure for each (name, kind, bar, environment) of `peers`, in rounds that take turns."""
        layouts = {kind: fastest(kind, batch) for kind in {kind for _, kind, _, _ in peers}}
        speeds = {side: [] for side in ["repro", *(name for name, _, _, _ in peers)]}
        for at in range(args.rounds):
            speeds["repro"].append(run(command)[2]["examples_per_second"])
            for name, kind, _, environment in peers:
                said = run(peer(kind, batch, steps, layouts[kind]), environment)[2]
                speeds[name].append(said["examples_per_second"])
            print(f"{config}, round {at + 1} of {args.rounds}: {[round(s[-1]) for s in speeds.values()]}", file=sys.stderr)
        note = lambda kind: f"The peer's memory format: {layouts[kind]}, the faster of two."
        return said["torch"], [
            measure("training speed", config, "images/s", "higher", bar, {side: speeds[side] for side in ("repro", name)}, note(kind))
            for name, kind, bar, _ in peers
        ]

    # Without a bar, for the reader: how much of it is glibc's allocator, which ours sets and Python leaves as it is.
    peers = [
        ("PyTorch, data at hand, no augmentation", "resident", 1, {}),
        ("PyTorch, data at hand, glibc keeping freed memory", "resident", None, KEEP_MEMORY),
        ("PyTorch, torchvision and DataLoader", "loader", 1.1, {}),
    ]
    version, measures = bench("ResNet-20 on CIFAR-10, crop and flip, batch 128", 128, args.steps, ours(CIFAR, 128, args.steps), peers)
    if args.photos:
        steps = max(2, args.steps // 5)
        photo = [("PyTorch, batches at hand", "photo", 1, {}), ("PyTorch, batches at hand, glibc keeping freed memory", "photo", None, KEEP_MEMORY)]
        command = ours(PHOTO, 32, steps, f"data.root={args.photos.resolve()}", "compute.precision=f32")
        _, more = bench("ResNet-18 at 224 pixels, photos from files, batch 32", 32, steps, command, photo)
        measures += more
    write(args.out, "resnet", f"PyTorch {version}, eager, fused SGD", measures)


main()

"""Our pre-training of SimCLR and PyTorch's in turn, round after round: called by run.sh, which builds and fetches first.

Both sides draw two views of each picture of CIFAR-10 in every measurement: the views with the step of two networks, then the views alone.
"""

import argparse
import pathlib
import sys

from common import BUILT, KEEP_MEMORY, THREADS, measure, run, write

LAYOUTS = ("channels_last", "contiguous")
SMALL, LARGE = "experiments/simclr/cifar10_10k_rn20_e20.yaml", "experiments/simclr/cifar10_r18_e100.yaml"
VIEWS = (
    "The peer's views: torchvision's RandomResizedCrop ({}), RandomHorizontalFlip, ColorJitter (0.4, 0.4, 0.4, 0.1) at p 0.8, RandomGrayscale at "
    "p 0.2 and ToTensor of PIL pictures, twice for each picture, in a DataLoader of two workers that persist."
)
STEP = (
    "Both sides: a head of two layers with batch norms, NT-Xent over all {} views of one pass, LARS (the peer's by torch._foreach), float32."
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="with ResNet-20; a quarter with ResNet-18, four times as many views alone")
    parser.add_argument("--batch", type=int, default=256, help="pictures; a quarter of it with ResNet-18")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    def ours(config, batch, steps):
        return [str(BUILT / "simclr"), "bench", "--config", config, "--device", "cpu", "--steps", str(steps), f"compute.threads={THREADS}",
                f"batch_size={batch}", "compute.precision=f32", f"data.root={args.data.resolve()}"]  # fmt: skip

    def peer(kind, batch, steps, layout=LAYOUTS[0]):
        return [sys.executable, "scripts/bench/simclr.py", kind, "--data", str(args.data), "--batch", str(batch), "--steps", str(steps),
                "--layout", layout]  # fmt: skip

    def turns(what, key, commands):
        """What each side says, round after round."""
        speeds, losses = {side: [] for side in commands}, {}
        for at in range(args.rounds):
            for side, (command, environment) in commands.items():
                said = run(command, environment)[2]
                speeds[side].append(said[key])
                losses[side] = said.get("loss", said.get("scalars", {}).get("loss"))
            print(f"{what}, round {at + 1} of {args.rounds}: {({side: round(s[-1], 1) for side, s in speeds.items()})}", file=sys.stderr)
        return speeds, losses, said

    def training(name, kind, config, filter, batch, steps, peers):
        """A measure for each (name, bar, environment) of `peers`."""
        speed = lambda layout: max(run(peer(kind, batch, max(1, steps // 2), layout))[2]["examples_per_second"] for _ in range(2))
        layout = max(LAYOUTS, key=speed)
        sides = {side: (peer(kind, batch, steps, layout), environment) for side, _, environment in peers}
        what = f"{name} on CIFAR-10, two views, batch {batch}"
        speeds, losses, said = turns(what, "examples_per_second", {"repro": (ours(config, batch, steps), {}), **sides})
        return said["torch"], [
            measure(
                "training speed", what, "images/s", "higher", bar, {s: speeds[s] for s in ("repro", side)},
                f"{VIEWS.format(filter)} {STEP.format(2 * batch)} The peer's memory format: {layout}, the faster of two. Mean loss over "
                f"{steps + 1} steps of ours: {losses['repro']:.2f}; of the peer's: {losses[side]:.2f}.",
            )
            for side, bar, _ in peers
        ]  # fmt: skip

    loader = "PyTorch, torchvision and DataLoader"
    # Without a bar, for the reader: how much of it is glibc's allocator, which ours sets and Python leaves as it is.
    peers = [(loader, 1.3, {}), (f"{loader}, glibc keeping freed memory", None, KEEP_MEMORY)]
    version, measures = training("ResNet-20", "resnet20", SMALL, "bilinear", args.batch, args.steps, peers)
    _, large = training("ResNet-18", "resnet18", LARGE, "bicubic", args.batch // 4, max(1, args.steps // 4), [(loader, 1, {})])
    what, steps = f"two views of CIFAR-10, batch {args.batch}, {THREADS} threads or workers", 4 * args.steps
    drawn = [str(BUILT / "examples/views"), str(args.data), "--batch", str(args.batch), "--steps", str(steps)]
    commands = {"repro": (drawn, {}), "torchvision and DataLoader": (peer("views", args.batch, steps), {})}
    speeds, _, _ = turns(what, "pictures_per_second", commands)
    note = f"Pictures drawn in two views, without training. {VIEWS.format('bilinear')} Ours: crates/core/examples/views.rs, batch by batch."
    views = measure("augmentation alone", what, "images/s", "higher", 5, speeds, note)
    write(args.out, "simclr", f"PyTorch {version}, eager", [*measures, *large, views])


main()

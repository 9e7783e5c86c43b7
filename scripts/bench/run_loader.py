"""Our photo loader and torchvision's in turn, round after round: called by run.sh, which builds and fetches first."""

import argparse
import pathlib
import sys

from common import BUILT, THREADS, measure, run, write


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    # The first epoch starts the workers and warms the cache of files; the second one is timed.
    words = [str(args.data), "--workers", THREADS, "--batch", str(args.batch), "--epochs"]
    commands = {
        "repro": lambda epochs: [str(BUILT / "examples/loader"), *words, str(epochs)],
        "torchvision": lambda epochs: [sys.executable, "scripts/bench/loader.py", *words, str(epochs)],
    }
    speeds = {side: [] for side in commands}
    for at in range(args.rounds):
        for side, command in commands.items():
            _, _, said = run(command(2))
            speeds[side].append(said["epochs"][-1]["images_per_second"])
            if side == "torchvision":
                versions = f"torchvision {said['torchvision']} (torch {said['torch']}, {said['decoder']}), ImageFolder and DataLoader"
            else:
                per_core = said["epochs"][-1]["images_per_core_second"]
                print(f"repro: {per_core:.0f} images/s of one core", file=sys.stderr)
        print(f"round {at + 1} of {args.rounds}", file=sys.stderr)
    _, _, said = run(commands["repro"](4))
    growths = [after / before for before, after in zip(said["resident_bytes"][1:], said["resident_bytes"][2:])]
    config = f"random_resized_crop 224 and flip, batch {args.batch}, {THREADS} workers"
    note = (
        f"Photos of {args.data.name}, from JPEG files to normalised float batches on the CPU; zune-jpeg. Resident memory after epochs 2, 3, 4: "
        f"{', '.join(f'{n / 2**20:.0f}' for n in said['resident_bytes'][1:])} MiB (largest growth {100 * max(growths) - 100:.1f} %)."
    )
    write(args.out, "loader", versions, [measure("photos decoded", config, "images/s", "higher", 2, speeds, note)])


main()

"""Our photo loader and torchvision's in turn, round after round: called by run.sh, which builds and fetches first."""

import argparse
import pathlib
import statistics
import sys

from common import BUILT, THREADS, measure, run, write


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turbojpeg", type=pathlib.Path, help="the loader example, built with the feature turbojpeg")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    # The first epoch starts the workers and warms the cache of files; the second one is timed.
    words = [str(args.data), "--workers", THREADS, "--batch", str(args.batch), "--epochs"]
    commands = {"zune-jpeg": [str(BUILT / "examples/loader")], "torchvision": [sys.executable, "scripts/bench/loader.py"]}
    if args.turbojpeg:
        commands["libjpeg-turbo"] = [str(args.turbojpeg)]
    said, speeds = {}, {side: [] for side in commands}
    for at in range(args.rounds):
        for side, command in commands.items():
            _, _, said[side] = run([*command, *words, "2"])
            speeds[side].append(said[side]["epochs"][-1]["images_per_second"])
        print(f"round {at + 1} of {args.rounds}: {({side: round(s[-1]) for side, s in speeds.items()})}", file=sys.stderr)

    config = f"random_resized_crop 224 and flip, batch {args.batch}, {THREADS} workers"
    measures = []
    for side, bar in [("zune-jpeg", 2), ("libjpeg-turbo", 3)]:
        if side not in commands:
            continue
        assert said[side]["decoder"] == side, said[side]["decoder"]
        _, _, four = run([*commands[side], *words, "4"])
        growths = [after / before for before, after in zip(four["resident_bytes"][1:], four["resident_bytes"][2:])]
        per_core = statistics.median(epoch["images_per_core_second"] for epoch in four["epochs"][1:])
        note = (
            f"Photos of {args.data.name}, from JPEG files to normalised float batches on the CPU; read by {side}: {per_core:.0f} images/s of one "
            f"core. Resident memory after epochs 2, 3, 4: {', '.join(f'{n / 2**20:.0f}' for n in four['resident_bytes'][1:])} MiB (largest growth "
            f"{100 * max(growths) - 100:.1f} %)."
        )
        sides = {"repro": speeds[side], "torchvision": speeds["torchvision"]}
        measures.append(measure("photos decoded", f"{config}, {side}", "images/s", "higher", bar, sides, note))
    peer = said["torchvision"]
    versions = f"torchvision {peer['torchvision']} (torch {peer['torch']}, {peer['decoder']}), ImageFolder and DataLoader"
    write(args.out, "loader", versions, measures)


main()

"""Our photos with boxes and torchvision's in turn, round after round: called by run.sh, which builds first."""

import argparse
import pathlib
import sys

from common import BUILT, THREADS, measure, run, write


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, help="of run.sh; not used")
    parser.add_argument("--coco", type=pathlib.Path, required=True, help="a folder in COCO's layout")
    parser.add_argument("--annotations", default="annotations/instances_val2017.json")
    parser.add_argument("--photos", default="val2017")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    words = ["--batch", "4", "--workers", THREADS, "--steps", str(args.steps)]
    files = [args.annotations, args.photos]
    commands = {
        "repro": [str(BUILT / "examples/scenes"), str(args.coco), "--annotations", files[0], "--photos", files[1]],
        "torchvision": [sys.executable, "scripts/bench/boxes.py", str(args.coco), *files],
    }
    said, speeds = {}, {side: [] for side in commands}
    for at in range(args.rounds):
        for side, command in commands.items():
            _, _, said[side] = run([*command, *words])
            speeds[side].append(said[side]["photos_per_second"])
        print(f"round {at + 1} of {args.rounds}: {({side: round(s[-1], 1) for side, s in speeds.items()})}", file=sys.stderr)
    peer = said["torchvision"]
    note = "Photos of COCO val2017 from JPEG files to padded float batches with boxes on the CPU, by DETR's training transforms."
    config = f"flip, crop policy, short sides 480 to 800, batch 4, {THREADS} workers"
    measures = [measure("photos with boxes", config, "photos/s", "higher", 2, speeds, note)]
    versions = f"torchvision {peer['torchvision']} (torch {peer['torch']}, {peer['decoder']}), CocoDetection, transforms v2 and DataLoader"
    write(args.out, "boxes", versions, measures)


main()

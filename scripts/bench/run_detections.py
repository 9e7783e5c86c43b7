"""Our evaluation of detections and pycocotools' in turn, round after round: called by run.sh, which builds and fetches first."""

import argparse
import pathlib
import sys
import tempfile

from common import BUILT, measure, run, write


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, help="is not read: the boxes are made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    script = [sys.executable, "scripts/bench/detections.py"]
    with tempfile.TemporaryDirectory() as folder:
        run([*script, "make", folder])
        files = [f"{folder}/annotations.json", f"{folder}/found.json"]
        commands = {"repro": [str(BUILT / "examples/detections"), *files], "pycocotools": [*script, "judge", *files]}
        said, seconds, walls, peaks = {}, *({side: [] for side in commands} for _ in range(3))
        for at in range(args.rounds):
            for side, command in commands.items():
                wall, peak, said[side] = run(command)
                seconds[side].append(said[side]["seconds"])
                walls[side].append(wall)
                peaks[side].append(peak)
            print(f"round {at + 1} of {args.rounds}: {({side: s[-1] for side, s in seconds.items()})}", file=sys.stderr)
    ours, theirs = said["repro"], said["pycocotools"]
    apart = max(abs(a - b) for a, b in zip(ours["numbers"], theirs["numbers"]))
    config = f"{ours['photos']} photos, 80 classes, {ours['detections']} detections, one thread"
    note = f"From boxes in memory to the twelve numbers, which differ by at most {apart:.0e}; AP {ours['numbers'][0]:.4f}."
    whole = "The process as a whole: JSON files read, boxes sorted, judged."
    measures = [
        measure("detections judged", config, "s", "lower", 10, seconds, note),
        measure("detections judged, from the files", config, "s", "lower", None, walls, whole),
        measure("peak memory", config, "bytes", "lower", None, peaks, whole),
    ]
    write(args.out, "detections", f"pycocotools {theirs['pycocotools']} (numpy {theirs['numpy']})", measures)


main()

"""Our training of DETR and transformers' in turn, and our matching and SciPy's: called by run.sh, which builds and fetches first.

Ours draws and centres its pictures in every measurement; the peer has them at hand.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
from common import BUILT, ROOT, THREADS, measure, run, write

# Of the network, the edge of its pictures and how many of them a step has.
SIDES = [("resnet50", "detr_resnet50", 256, 2), ("small", "detr_small", 128, 16)]
TABLES = [(20, 100), (100, 900)]


def solved(rows, columns):
    """Median seconds of SciPy's, and what its pairs cost, on the table that ours has."""
    from scipy.optimize import linear_sum_assignment

    sys.path.insert(0, str(ROOT / "scripts/fixtures"))
    import golden

    costs, seconds = 2 * golden.uniform("costs", rows * columns).reshape(rows, columns), []
    for _ in range(201):
        start = time.perf_counter()
        pairs = linear_sum_assignment(costs)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), costs[pairs].sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, help="is not read: the pictures are drawn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    measures, version = [], None
    for kind, name, edge, batch in SIDES:
        fit = f"{{kind: stretch, width: {edge}, height: {edge}, filter: bilinear}}"
        ours = [str(BUILT / "detr"), "bench", "--config", "experiments/detr/coco_resnet50.yaml", "--device", "cpu", "--steps", str(args.steps + 1),
                f"compute.threads={THREADS}", f"batch_size={batch}", "data.name=synthetic_canvases", "model.num_classes=10", "augment=[]",
                f"view={{train: {fit}, test: {fit}}}", f"model.name={name}", "model.frozen_norm=true"]  # fmt: skip
        ours += [] if kind == "resnet50" else ["freeze=null"]
        peer = [sys.executable, "scripts/bench/detr.py", kind, "--edge", str(edge), "--batch", str(batch), "--steps", str(args.steps)]
        speeds = {"repro": [], "transformers": []}
        for at in range(args.rounds):
            for side, command in zip(speeds, [ours, peer]):
                said = run(command)[2]
                speeds[side].append(said["examples_per_second"])
                version = said.get("torch", version)
            print(f"{name}, round {at + 1} of {args.rounds}: {[round(s[-1], 2) for s in speeds.values()]}", file=sys.stderr)
        config = f"{name}, {edge} pixels, batch {batch}, losses after every layer"
        measures.append(measure("training speed", config, "images/s", "higher", 1, speeds, ""))
    for rows, columns in TABLES:
        seconds, costs = {"repro": [], "SciPy": []}, {}
        for _ in range(args.rounds):
            said = run([str(BUILT / "examples/matcher"), str(rows), str(columns)])[2]
            theirs, costs["SciPy"] = solved(rows, columns)
            seconds["repro"].append(said["seconds"])
            seconds["SciPy"].append(theirs)
            costs["repro"] = said["cost"]
        assert abs(costs["repro"] - costs["SciPy"]) < 1e-9, costs
        measures.append(measure("matching", f"a table of {rows} × {columns}", "s", "lower", 1, seconds, "Both pairings cost the same."))
    write(args.out, "detr", f"PyTorch {version}, transformers 5.24.0, eager, fused AdamW", measures)


main()

"""Runs ours and the peers in turn, round after round, and writes what they did: called by run.sh, which builds and fetches first."""

import argparse
import pathlib
import statistics
import sys
import tempfile

from common import BUILT, THREADS, measure, run, write

CONFIG = "experiments/lenet/lenet5_modern.yaml"
# The peers' own choices of how to hold the pictures and lay them out; the fastest is the peer.
CHOICES = [["--store", s, "--layout", l] for s in ("float", "bytes") for l in ("contiguous", "channels_last")]


def ours(batch, steps):
    return [str(BUILT / "lenet"), "bench", "--config", CONFIG, "--device", "cpu", "--steps", str(steps),
            f"compute.threads={THREADS}", f"batch_size={batch}"]  # fmt: skip


def peer(args, kind, batch, steps, choice=()):
    return [sys.executable, "scripts/bench/lenet.py", kind, "--data", str(args.data), "--batch", str(batch),
            "--steps", str(steps), *choice]  # fmt: skip


def idle(batch):
    """Seconds per step of core's loop around a recipe that does nothing, with logs and checkpoints as in a real run."""

    def train(epochs):
        with tempfile.TemporaryDirectory() as folder:
            wall, _, said = run([str(BUILT / "examples/idle"), "train", "--config", "scripts/bench/idle.yaml", "--json",
                                 "--quiet", "--out", f"{folder}/run", f"batch_size={batch}", f"length={epochs} epochs"])  # fmt: skip
            return wall, said["steps"]

    # The difference of two lengths leaves out the start and the end of the process.
    (short, few), (long, many) = train(1), train(21)
    return (long - short) / (many - few)


def bench(args, batch):
    """The measures of one batch size."""
    speed = lambda said: said[2]["examples_per_second"]
    warm = 8192 // batch
    fastest = max(CHOICES, key=lambda c: max(speed(run(peer(args, "resident", batch, 2 * warm, c))) for _ in range(3)))
    sides = {
        "repro": lambda steps: ours(batch, steps),
        "PyTorch, in memory": lambda steps: peer(args, "resident", batch, steps, fastest),
        "PyTorch, DataLoader": lambda steps: peer(args, "loader", batch, steps),
    }
    # Ours and the first peer do the same number of steps, so that their losses can be compared.
    quick, slow = (int(args.seconds * speed(run(sides[name](warm))) / batch) + 1 for name in list(sides)[1:])
    steps = dict(zip(sides, (quick + quick // 3, quick + quick // 3, slow)))
    speeds, starts, peaks, losses = ({name: [] for name in sides} for _ in range(4))
    loops = []
    for at in range(args.rounds):
        for name, command in sides.items():
            _, peak, said = run(command(steps[name]))
            speeds[name].append(said["examples_per_second"])
            peaks[name].append(peak)
            losses[name].append(said["scalars"]["loss"] if name == "repro" else said["loss"])
            # One step and, on both sides, the step that warms up.
            starts[name].append(run(command(1))[0])
        loops.append(1e6 * idle(batch))
        print(f"batch {batch}, round {at + 1} of {args.rounds}", file=sys.stderr)
    config = f"lenet5_modern, batch {batch}"
    found = []
    for name, bar in (("PyTorch, in memory", 1.2), ("PyTorch, DataLoader", 8)):
        means = {side: statistics.fmean(losses[side]) for side in ("repro", name)}
        note = f"Mean training loss over {steps['repro']} steps of ours: {means['repro']:.3f}; over {steps[name]} of the peer's: {means[name]:.3f}."
        if name == "PyTorch, in memory":
            note += f" The peer's pictures and layout: {fastest[1]}, {fastest[3]}, the fastest of {len(CHOICES)}."
        pick = lambda values: {side: values[side] for side in ("repro", name)}
        found += [
            measure("training speed", config, "images/s", "higher", bar, pick(speeds), note),
            measure("start to second step", config, "s", "lower", None, pick(starts), "Wall time of a process that takes two steps."),
            measure("peak memory", config, "bytes", "lower", 1, pick(peaks), "Largest resident size of the process, without the DataLoader's workers."),
        ]  # fmt: skip
    steps = [1e6 * batch / speed for speed in speeds["repro"]]
    note = "Core's loop around a recipe that does nothing (crates/core/examples/idle.rs), beside a whole step; 100: less than 1 % of it."
    found.append(measure("loop around the step", config, "µs", "lower", 100, {"repro, the loop": loops, "repro, a step": steps}, note))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement, at least")
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    peer_name = f"PyTorch {run(peer(args, 'resident', 64, 1))[2]['torch']}, eager, fused SGD"
    write(args.out, "lenet", peer_name, [found for batch in args.batches for found in bench(args, batch)])


main()

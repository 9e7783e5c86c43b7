"""Our training and sampling by DDPM and diffusers' in turn, round after round: called by run.sh, which builds and fetches first.

Ours reads and centres its pictures in every measurement; the peer has them at hand. The peer runs in both memory formats, and the faster of each
round counts.
"""

import argparse
import pathlib
import sys
import tempfile

from common import BUILT, THREADS, measure, run, write

CONFIG = "experiments/ddpm/mnist.yaml"
PEER = "diffusers"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--bf16", action="store_true", help="in bfloat16, too: for processors that have it")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    settings = ["--config", CONFIG, "--device", "cpu", f"data.root={args.data.resolve()}", f"compute.threads={THREADS}"]
    ddpm, measures, version = str(BUILT / "ddpm"), [], None

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run([ddpm, "train", *settings, "length=1 step", "schedule.warmup=null", "score=null", "eval.samples=null", "--out", str(folder / "run"), "-q", "--json"])

        def sample(precision, n):
            said = run([ddpm, "sample", *settings, f"compute.precision={precision}", "--weights", str(folder / "run"), "--steps", "50",
                        "--out", str(folder / f"{precision}{n}"), "--json"])[2]  # fmt: skip
            return 64 / said[0]["seconds"]

        for precision in ["f32", "bf16"] if args.bf16 else ["f32"]:
            word = {"f32": "", "bf16": ", bfloat16"}[precision]
            speeds = {what: {"repro": [], PEER: []} for what in ("train", "sample")}
            for at in range(args.rounds):
                told = run([ddpm, "bench", *settings, f"compute.precision={precision}", "--steps", str(args.steps + 1)])[2]
                speeds["train"]["repro"].append(told["examples_per_second"])
                speeds["sample"]["repro"].append(sample(precision, at))
                for what, steps in (("train", args.steps), ("sample", 50)):
                    peer = [sys.executable, "scripts/bench/ddpm.py", what, "--steps", str(steps), "--precision", precision, "--layout"]
                    said = [run([*peer, layout])[2] for layout in ("contiguous", "channels_last")]
                    speeds[what][PEER].append(max(one["examples_per_second"] for one in said))
                    version = said[0]["torch"]
                print(f"round {at + 1} of {args.rounds}: {speeds}", file=sys.stderr)
            note = "The peer is the faster of both memory formats in each round."
            measures += [
                measure("training speed", f"a U-Net of 0.7 million, MNIST, batch 32{word}", "images/s", "higher", 1, speeds["train"], note),
                measure("sampling speed", f"the same, 64 pictures by DDIM in 50 steps{word}", "images/s", "higher", 1, speeds["sample"], note),
            ]
    write(args.out, "ddpm", f"PyTorch {version}, eager, diffusers 0.42.1, fused Adam", measures)


main()

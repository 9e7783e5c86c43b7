"""What the measurements share: running a side, and the file that they are written to."""

import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
THREADS = "2"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": THREADS}
# What ours asks of glibc (crates/torch-ext/src/memory.rs) and Python does not: to keep freed memory instead of taking it anew from the system.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def run(command, environment={}):
    """Wall time in seconds, peak memory in bytes of this process alone, and the last line of its output as JSON."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT | environment, stdout=subprocess.PIPE)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"error: {' '.join(command)} failed, see above")
    return seconds, usage.ru_maxrss * 1024, json.loads(said.splitlines()[-1])


def given():
    """The arguments that run.sh was given; places on this machine are named as they are called in the checkout."""
    words = [word for flag, word in zip([None, *sys.argv[1:]], sys.argv[1:]) if not {flag, word} & {"--data", "--out", "--turbojpeg"}]
    return [os.path.relpath(word, ROOT) if os.path.isabs(word) else word for word in words]


def ratio(left, right):
    return statistics.median(a / b for a, b in zip(left, right))


def measure(name, config, unit, better, bar, sides, note):
    sides = [{"name": side, "values": values} for side, values in sides.items()]
    print(f"{config}, {name}: {ratio(sides[0]['values'], sides[1]['values']):.3f} of {sides[1]['name']}", file=sys.stderr)
    return {"name": name, "config": config, "unit": unit, "better": better, "bar": bar, "sides": sides, "note": note}


def write(out, paper, peer, measures):
    """Writes results/benchmarks/PAPER.json; `out` overrides the place."""
    git = lambda *words: subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()
    changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    cpu = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    report = {
        "paper": paper,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "HEAD") + changes,
        "command": " ".join(["scripts/bench/run.sh", paper, *given()]),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "threads": int(THREADS)},
        "libtorch": "2.11.0",
        "peer": peer,
        "measures": measures,
    }
    out = out or ROOT / f"results/benchmarks/{paper}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(out)

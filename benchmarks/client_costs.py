"""What a client takes, beside what it cannot do without: seconds to start, memory, seconds to train and to evaluate.

    python benchmarks/client_costs.py
    python benchmarks/client_costs.py --frameworks pytorch --datasets mnist --repeat 5

- "start" is from the start of the process until the server sees the client, its partition being prepared.
- "imports" is a process that imports the framework and `NumPyClient` of flwr.client, as any client in Python has to,
  and ends.
- "peak" is the memory of the client's process at its largest, over that of these imports.
- "fit" and "evaluate" are those of the script's FlowerClient, from parameters to results, with one thread, 3 epochs
  and batches of 16; beside them the baseline, see baseline.py. Both run in turn in one process.

Medians of the repetitions, after a first one that does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import NUM_IMAGES, peak_mb, print_head, print_row, run_federation, versions, write_partitions
from processes import ROOT

MODULE = {"pytorch": "torch", "tf": "tensorflow"}


def imports(framework: str) -> tuple[float, float]:
    """Return the seconds from a process's start until its imports are done, and its peak megabytes."""
    code = (
        f"import resource, {MODULE[framework]}\nfrom flwr.client import NumPyClient\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)\n"
    )
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = float(process.stdout.readline())
    seconds = time.perf_counter() - started
    process.wait(60)
    return seconds, peak


def start_and_peak(framework: str, dataset: str, data_dir: Path, args: argparse.Namespace) -> list[str]:
    """Return the cells about start and memory."""
    imports(framework)  # the first one reads the files from the disk
    run_federation(framework, dataset, data_dir)  # finds out the number of threads
    measured = []
    for _ in range(args.repeat):
        floor = imports(framework)
        federation = run_federation(framework, dataset, data_dir)
        measured.append((*floor, federation.start_seconds, peak_mb(federation)))
    floor, floor_mb, start, peak = map(median, zip(*measured))
    return [f"{start:.2f} s", f"{floor:.2f} s", f"{start / floor:.2f}", f"{peak - floor_mb:.0f} MB"]


def training(framework: str, dataset: str, data_dir: Path, args: argparse.Namespace) -> list[str]:
    """Return the cells about fit and evaluate."""
    script = Path(__file__).parent.resolve() / "baseline.py"
    command = [sys.executable, str(script), framework, dataset, str(data_dir), str(args.repeat)]
    output = subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    s = json.loads(output.splitlines()[-1])
    return [
        *(f"{s['fit']:.2f} s", f"{s['baseline fit']:.2f} s", f"{s['fit'] / s['baseline fit']:.2f}"),
        *(f"{1000 * s['evaluate']:.0f} ms", f"{1000 * s['baseline evaluate']:.0f} ms"),
        f"{s['evaluate'] / s['baseline evaluate']:.2f}",
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", default=list(MODULE), choices=list(MODULE))
    parser.add_argument("--datasets", nargs="+", default=list(NUM_IMAGES), choices=list(NUM_IMAGES))
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each kind (default: %(default)s)")
    args = parser.parse_args()

    print(versions())
    columns = "client", "start", "imports", "ratio", "peak", "fit", "baseline", "ratio", "evaluate", "baseline", "ratio"
    print_head(*columns)
    with tempfile.TemporaryDirectory() as folder:
        for framework in args.frameworks:
            for dataset in args.datasets:
                write_partitions(dataset, 1, Path(folder))
                costs = [task(framework, dataset, Path(folder), args) for task in (start_and_peak, training)]
                print_row(f"{framework}, {dataset}", *costs[0], *costs[1])


if __name__ == "__main__":
    main()

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

import tempfile
from pathlib import Path
from statistics import median

from common import imports, parser_of, peak_mb, print_head, print_row, run_federation, training, write_partitions

MODULE = {"pytorch": "torch", "tf": "tensorflow"}


def start_and_peak(framework: str, dataset: str, data_dir: Path, repeat: int) -> list[str]:
    """Return the cells about start and memory."""
    statement = f"import {MODULE[framework]}; from flwr.client import NumPyClient"
    imports(statement)  # the first one reads the files from the disk
    run_federation(framework, dataset, data_dir)  # finds out the number of threads
    measured = []
    for _ in range(repeat):
        floor = imports(statement)
        federation = run_federation(framework, dataset, data_dir)
        measured.append((*floor, federation.start_seconds, peak_mb(federation)))
    floor, floor_mb, start, peak = map(median, zip(*measured))
    return [f"{start:.2f} s", f"{floor:.2f} s", f"{start / floor:.2f}", f"{peak - floor_mb:.0f} MB"]


def fit_and_evaluate(framework: str, dataset: str, data_dir: Path, repeat: int) -> list[str]:
    """Return the cells about fit and evaluate."""
    s = training(framework, dataset, data_dir, repeat)
    fits, evaluates = (s["fit"], s["baseline fit"]), (1000 * s["evaluate"], 1000 * s["baseline evaluate"])
    cells = [*(f"{each:.2f} s" for each in fits), f"{fits[0] / fits[1]:.2f}"]
    return [*cells, *(f"{each:.0f} ms" for each in evaluates), f"{evaluates[0] / evaluates[1]:.2f}"]


def main() -> None:
    """Measure and print the table."""
    args = parser_of(__doc__, frameworks=tuple(MODULE), datasets=("mnist", "cifar10"), repeat=3).parse_args()
    beside = "baseline", "ratio"
    print_head("client", "start", "imports", "ratio", "peak", "fit", *beside, "evaluate", *beside)
    with tempfile.TemporaryDirectory() as folder:
        for framework in args.frameworks:
            for dataset in args.datasets:
                write_partitions(dataset, 1, Path(folder))
                what = framework, dataset, Path(folder), args.repeat
                print_row(f"{framework}, {dataset}", *start_and_peak(*what), *fit_and_evaluate(*what))


if __name__ == "__main__":
    main()

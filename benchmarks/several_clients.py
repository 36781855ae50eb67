"""How long a round takes when several clients share this machine, beside what one client alone takes.

    python benchmarks/several_clients.py
    python benchmarks/several_clients.py --frameworks pytorch --datasets cifar10 --clients 1 2 4

Real servers and clients on partitions of the same size. "ideal" is the time of a round of one client alone, times the
clients, over the cores. The number of threads is what the clients themselves find out at their first start, each group
on its own. Medians over the rounds of all repetitions, without the first round of each run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from common import print_row, run_federation, versions, write_partitions

ROUNDS = 3


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", default=["pytorch", "tf"])
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    print(versions())
    print_row("clients", "a round", "one client alone", "ideal", "a round / ideal")
    print_row(*["---"] * 5)
    for framework in args.frameworks:
        for dataset in args.datasets:
            counts = [1, *args.clients]
            rounds: dict[int, list[float]] = {count: [] for count in counts}
            with tempfile.TemporaryDirectory() as folder:
                for count in counts * args.repeat:
                    data_dir = Path(folder, str(count))
                    write_partitions(dataset, count, data_dir)
                    rounds[count] += run_federation(framework, dataset, data_dir, count, ROUNDS).round_seconds[1:]
            seconds = {count: statistics.median(times) for count, times in rounds.items()}
            for count in args.clients:
                ideal = seconds[1] * count / min(count, os.cpu_count())
                print_row(
                    f"{count} x {framework}, {dataset}",
                    *(f"{s:.2f} s" for s in (seconds[count], seconds[1], ideal)),
                    f"{seconds[count] / ideal:.2f}",
                )


if __name__ == "__main__":
    main()

"""How long a round takes when several clients share this machine, beside what one client alone takes.

    python benchmarks/several_clients.py
    python benchmarks/several_clients.py --frameworks pytorch --datasets cifar10 --clients 1 2 4

Real servers and clients on partitions of the same size. "ideal" is the time of a round of one client alone, on one
thread, times the clients, over the cores. Medians over the rounds of all repetitions without the first of each run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from common import parser_of, print_head, print_row, run_federation, write_partitions

ROUNDS = 3


def seconds_a_round(framework: str, dataset: str, counts: list[int], repeat: int) -> dict[int, float]:
    """Return the median seconds of a round by the number of clients."""
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts * repeat:
            data_dir = Path(folder, str(count))
            write_partitions(dataset, count, data_dir)
            threads = ("--threads", 1) if count == 1 else ()  # as each has with two on two cores
            rounds = run_federation(framework, dataset, data_dir, count, ROUNDS, *threads).rounds
            seconds[count] += [float(row["seconds"]) for row in rounds[1:]]
    return {count: statistics.median(times) for count, times in seconds.items()}


def main() -> None:
    """Measure and print the table."""
    which = {"frameworks": ("pytorch", "tf"), "datasets": ("mnist", "cifar10")}
    args = parser_of(__doc__, **which, clients=[2, 4], repeat=2).parse_args()
    print_head("clients", "a round", "one client alone", "ideal", "a round / ideal")
    for framework in args.frameworks:
        for dataset in args.datasets:
            seconds = seconds_a_round(framework, dataset, [1, *args.clients], args.repeat)
            for count in args.clients:
                ideal = seconds[1] * count / min(count, os.cpu_count())
                cells = (f"{s:.2f} s" for s in (seconds[count], seconds[1], ideal))
                print_row(f"{count} x {framework}, {dataset}", *cells, f"{seconds[count] / ideal:.2f}")


if __name__ == "__main__":
    main()

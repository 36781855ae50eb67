"""The accuracy of the global model after each round: FedAvg with the clients' own models and training, in one process.

    python benchmarks/accuracy.py pytorch --data_dir data
    python benchmarks/accuracy.py tf --data_dir data --mnist --num_partitions 2

Clients hold partitions 0, 1, ... of `--num_partitions`. After each round the averaged model is tested, in evaluation
mode, on the data set's test split. One line a seed.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Iterator, Sequence

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Examples, Partitioning, load_partition, load_test_split

import numpy as np
from baseline import load_client
from common import parser_of


def simulate(
    client: type, dataset: str, train_sets: Sequence[Examples], test_set: Examples, **config: int
) -> Iterator[tuple[float, float]]:
    """Run rounds without end; after each, yield the seconds of the slowest client's fit and the accuracy."""
    device = client(dataset, train_sets[0], test_set)  # each client, one after the other
    state = [array.copy() for array in device.get_parameters({})]
    weights = [len(train_set.labels) for train_set in train_sets]
    while True:
        trained, seconds = [], []
        for device.train_set in train_sets:
            started = time.process_time()  # on one thread; what else runs on this machine does not count
            parameters, _, _ = device.fit(state, config)
            seconds.append(time.process_time() - started)
            trained.append([array.copy() for array in parameters])
        averages = [np.average(arrays, axis=0, weights=weights) for arrays in zip(*trained)]
        state = [average.astype(old.dtype) for average, old in zip(averages, state)]
        yield max(seconds), device.evaluate(state, {})[2]["accuracy"]


def main() -> None:
    """Run the federations and print the accuracies."""
    run = {"clients": 2, "num_partitions": 5, "rounds": 3, "epochs": 3, "batch_size": 16, "seeds": [0, 1, 2]}
    parser = parser_of(__doc__, data_dir=Path, **run)
    parser.add_argument("framework", choices=("pytorch", "tf"))
    parser.add_argument("--mnist", action="store_true")
    args = parser.parse_args()
    dataset = "mnist" if args.mnist else "cifar10"
    partitioning = Partitioning(dataset, args.data_dir, args.num_partitions)
    train_sets = [load_partition(partitioning, cid)[0] for cid in range(args.clients)]
    test_set = load_test_split(dataset, args.data_dir)
    for seed in args.seeds:
        client = load_client(args.framework, seed).FlowerClient
        rounds = simulate(client, dataset, train_sets, test_set, epochs=args.epochs, batch_size=args.batch_size)
        figures = "  ".join(f"{100 * accuracy:.1f} %" for _, accuracy in islice(rounds, args.rounds))
        print(f"{args.framework} {dataset}, seed {seed}: {figures}", flush=True)


if __name__ == "__main__":
    main()

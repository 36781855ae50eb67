"""The accuracy of the global model after each round: FedAvg with the clients' own models and training, in one process.

    python benchmarks/accuracy.py pytorch --data_dir data
    python benchmarks/accuracy.py tf --data_dir data --mnist --num_partitions 2

Clients hold partitions 0, 1, ... of `--num_partitions`. After each round the averaged model is tested, in evaluation
mode, on the data set's test split. One line a seed.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, Iterator, Sequence

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Examples, Partitioning, load_partition, load_test_split

import numpy as np
from baseline import load_client


def simulate(
    client: Any, dataset: str, train_sets: Sequence[Examples], test_set: Examples, args: argparse.Namespace
) -> Iterator[float]:
    """Run the rounds; after each, yield the accuracy of the averaged model."""
    model = client.build_model(dataset)
    state = [array.copy() for array in client.get_parameters(model)]
    weights = [len(train_set.labels) for train_set in train_sets]
    for _ in range(args.rounds):
        trained = []
        for train_set in train_sets:
            client.set_parameters(model, state)
            client.train(model, train_set, client.LEARNING_RATE[dataset], args.epochs, args.batch_size, math.inf)
            trained.append([array.copy() for array in client.get_parameters(model)])
        state = [np.average(arrays, axis=0, weights=weights).astype(np.float32) for arrays in zip(*trained)]
        client.set_parameters(model, state)
        yield client.test(model, test_set)[1]


def main() -> None:
    """Run the federations and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=("pytorch", "tf"))
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--num_partitions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    dataset = "mnist" if args.mnist else "cifar10"
    partitioning = Partitioning(dataset, args.data_dir, args.num_partitions)
    train_sets = [load_partition(partitioning, cid)[0] for cid in range(args.clients)]
    test_set = load_test_split(dataset, args.data_dir)
    for seed in args.seeds:
        client = load_client(args.framework, seed)
        accuracies = simulate(client, dataset, train_sets, test_set, args)
        figures = "  ".join(f"{100 * accuracy:.1f} %" for accuracy in accuracies)
        print(f"{args.framework} {dataset}, seed {seed}: {figures}", flush=True)


if __name__ == "__main__":
    main()

"""The accuracy of the global model after each round: FedAvg with the clients' own models and training, in one process.

    python benchmarks/accuracy.py pytorch --data_dir data
    python benchmarks/accuracy.py tf --data_dir data --mnist --num_partitions 2

Clients hold partitions 0, 1, ... of `--num_partitions`. After each round the averaged model is tested, in evaluation
mode, on the data set's test split. One line a seed; seconds are those of training on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.partitions import load_partition, load_test_split

import numpy as np


def seed_framework(framework: str, seed: int) -> None:
    """Make one thread and `seed` the start of everything random."""
    if framework == "pytorch":
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(seed)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.keras.utils.set_random_seed(seed)


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

    client = import_module(f"client_{args.framework}")
    parts = [load_partition(dataset, cid, args.num_partitions, args.data_dir)[0] for cid in range(args.clients)]
    weights = [len(part.labels) for part in parts]
    test_set = load_test_split(dataset, args.data_dir)
    for seed in args.seeds:
        seed_framework(args.framework, seed)
        model = client.build_model(dataset)
        state = [array.copy() for array in client.get_parameters(model)]
        accuracies, seconds = [], 0.0
        for _ in range(args.rounds):
            trained = []
            for part in parts:
                client.set_parameters(model, state)
                started = time.perf_counter()
                client.train(model, part, client.LEARNING_RATE[dataset], args.epochs, args.batch_size)
                seconds += time.perf_counter() - started
                trained.append([array.copy() for array in client.get_parameters(model)])
            state = [np.average(arrays, axis=0, weights=weights).astype(np.float32) for arrays in zip(*trained)]
            client.set_parameters(model, state)
            accuracies.append(client.test(model, test_set)[1])
        figures = "  ".join(f"{100 * accuracy:.1f} %" for accuracy in accuracies)
        print(f"{args.framework} {dataset}, seed {seed}: {figures}  ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

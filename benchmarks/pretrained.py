"""client_onnx.py, whose network is trained already, beside client_pytorch.py; and what few images are enough for.

    python benchmarks/pretrained.py --data_dir data
    python benchmarks/pretrained.py --data_dir data --alphas even --draws 1

Real servers and clients: 2 with even partitions of a fifth of CIFAR-10, and 5 with `--alpha 0.1`. Accuracies are the
server's. "sent" is all that server and clients send each other up to a round, with the initial model; "imports" is the
peak memory of a process that only imports the script. Then, in one process: the seconds of a fit on one thread, without
other processes' work; client_onnx.py makes features of its images in the first, and keeps them. Its accuracy with few
images of each class, mean and worst of `--draws`: CIFAR-10's classes are like some that its network was trained with,
MNIST's digits are not. Whether the model of the 5 clients is the same, bit for bit, in all orders of these.
"""

from __future__ import annotations

import sys
from itertools import islice, permutations, product
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Examples, Partitioning, load_partition, load_test_split
from federation.server.strategy import DeviceFedAvg
from federation.wire.models import digest

import numpy as np
from accuracy import simulate
from baseline import load_client
from common import imports, parser_of, peak_mb, print_head, print_row, run_federation
from flwr.common import FitRes, ndarrays_to_parameters
from processes import ROOT
from raw_client import OK

FRAMEWORKS = "onnx", "pytorch"
RUNS = {"even": (2, ()), "0.1": (5, ("--alpha", 0.1))}  # clients, and their flags
PARTITIONS, ROUNDS = 5, 3
COUNTS = 3, 10, 20  # images of a class


def measure_run(framework: str, alpha: str, data_dir: Path) -> None:
    """Run a federation; print a row about it."""
    clients, more = RUNS[alpha]
    more = "--num_clients", PARTITIONS, *more
    federation = run_federation(framework, "cifar10", data_dir, clients, ROUNDS, *more, test=True)
    first, last = (f"{100 * float(federation.rounds[i]['central_accuracy']):.1f} %" for i in (0, -1))
    rounds = [[row for row in federation.client_rows if row["round"] == f"{i + 1}"] for i in range(ROUNDS)]
    sent = [sum(float(row["sent_mb"]) + float(row["received_mb"]) for row in rows) for rows in rounds]
    initial = float(rounds[0][0]["received_mb"])  # the server gets it from one client
    traffic = f"{initial + sent[0]:.1f} MB", f"{initial + sum(sent):.1f} MB"
    memory = f"{peak_mb(federation):.0f} MB", f"{imports(f'import client_{framework}')[1]:.0f} MB"
    print_row(f"{clients}, {alpha}", f"client_{framework}.py", first, last, *traffic, *memory)


def measure_fit(framework: str, partitioning: Partitioning) -> None:
    """Print a row about a client's first and second fit."""
    train_set, validation_set = load_partition(partitioning, 0)
    client = load_client(framework, seed=0).FlowerClient
    rounds = simulate(client, "cifar10", [train_set], validation_set, epochs=3, batch_size=16)
    print_row(f"client_{framework}.py", *(f"{seconds:.2f} s" for seconds, _ in islice(rounds, 2)))


def measure_few_images(client: Any, dataset: str, train_set: Examples, test_set: Examples, draws: int) -> None:
    """Print a row about few images; `client` is client_onnx.py as a module."""
    (images, labels), random = train_set, np.random.default_rng(0)
    model, cells = client.build_model(dataset), []
    for count in COUNTS:
        accuracies = []
        for _ in range(draws):
            order = random.permutation(len(labels))
            chosen = np.concatenate([order[labels[order] == label][:count] for label in range(10)])
            client.set_parameters(model, client.moments(*client.look(Examples(images[chosen], labels[chosen])), 10))
            accuracies.append(100 * client.test(model, test_set)[1])
        cells.append(f"{mean(accuracies):.1f} % ({min(accuracies):.1f})")
    print_row(dataset, *cells)


def models_in_all_orders(client: Any, train_sets: list[Examples]) -> list[bytes]:
    """Return the SHA-256 of the average of the clients' moments, for each order that they can come in."""
    features = [client.look(train_set) for train_set in train_sets]
    moments = [ndarrays_to_parameters(client.moments(x, y, 10)) for x, y in features]
    fits = [(None, FitRes(OK, parameters, len(y), {})) for parameters, (_, y) in zip(moments, features)]
    return [digest(DeviceFedAvg().aggregate_fit(1, list(order), [])[0]) for order in permutations(fits)]


def main() -> None:
    """Measure and print the tables."""
    args = parser_of(__doc__, data_dir=Path, alphas=tuple(RUNS), draws=10).parse_args()
    rounds = "round 1", f"round {ROUNDS}", "sent in round 1", f"in {ROUNDS} rounds"
    print_head("clients, alpha", "script", *rounds, "peak", "imports")
    for alpha, framework in product(args.alphas, FRAMEWORKS):
        measure_run(framework, alpha, args.data_dir)
    print_head("script", "first", "next", about="\nSeconds of a fit:")
    for framework in FRAMEWORKS:
        measure_fit(framework, Partitioning("cifar10", args.data_dir, PARTITIONS))
    client = load_client("onnx", seed=0)
    folders = {"mnist": ROOT / "sample_data", "cifar10": args.data_dir}
    train_sets = [load_partition(Partitioning(dataset, folder, 1), 0)[0] for dataset, folder in folders.items()]
    test_sets = [load_test_split(dataset, folder) for dataset, folder in folders.items()]
    print_head("data set", *map(str, COUNTS), about="\nAccuracy (and the worst), by the images of a class:")
    for dataset, train_set, test_set in zip(folders, train_sets, test_sets):
        measure_few_images(client, dataset, train_set, test_set, args.draws)
    partitioning = Partitioning("cifar10", args.data_dir, PARTITIONS, 0.1)
    train_sets = [load_partition(partitioning, cid)[0] for cid in range(PARTITIONS)]
    models = models_in_all_orders(client, train_sets)
    print(f"\n{len(models)} orders of {PARTITIONS} clients with alpha 0.1: {len(set(models))} different models")


if __name__ == "__main__":
    main()

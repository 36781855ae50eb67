"""Federated learning server: waits for clients, runs the rounds, averages the clients' models (FedAvg).

Start it on a laptop, then start a client on each device (see client_pytorch.py, client_tf.py):

    python server.py --rounds 3 --min_num_clients 2 --sample_fraction 1.0

The server knows neither the model nor the data set: it averages whatever arrays the clients send. Only for an
evaluation of its own it needs to be told both:

    python server.py --rounds 3 --min_num_clients 2 --evaluate_with pytorch --mnist
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Callable

from federation.arguments import (
    ArgumentParser,
    add_data_dir,
    dataset_name,
    fraction,
    listen_address,
    whole_number,
)
from federation.partitions import load_test_split
from federation.report import Report
from federation.serving import serve
from federation.strategy import DeviceFedAvg, weighted_average

from flwr.common import Metrics, NDArrays, Scalar


def main() -> None:
    """Run the server that the command line describes."""
    args = parse_args()
    evaluate_fn = central_evaluation(args)
    try:
        report = Report(args.results_dir)
    except OSError as error:
        sys.exit(f"server.py: cannot write results: {error}")
    strategy = DeviceFedAvg(
        fraction_fit=args.sample_fraction,
        fraction_evaluate=args.sample_fraction,
        min_fit_clients=1,  # these two minimums would outweigh the fraction
        min_evaluate_clients=1,
        min_available_clients=args.min_num_clients,
        on_fit_config_fn=lambda server_round: fit_config(server_round, args),
        on_evaluate_config_fn=lambda server_round: {"server_round": server_round},
        evaluate_fn=evaluate_fn,
        fit_metrics_aggregation_fn=weighted_average,
        evaluate_metrics_aggregation_fn=weighted_average,
        report=report,
    )
    serve(strategy, args.server_address, args.rounds)


def fit_config(server_round: int, args: argparse.Namespace) -> dict[str, Scalar]:
    """Return what the clients are told about a round of training, besides the global model."""
    return {"server_round": server_round, "epochs": args.epochs, "batch_size": args.batch_size}


def central_evaluation(args: argparse.Namespace) -> Callable | None:
    """Return a function that tests the global model on the data set's test split, or None if not asked for."""
    if args.evaluate_with is None:
        return None
    client = import_module(f"client_{args.evaluate_with}")  # here, because only this needs torch or tensorflow
    model = client.build_model(dataset_name(args))
    test_set = load_test_split(dataset_name(args), args.data_dir)

    def evaluate(server_round: int, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, Metrics]:
        client.set_parameters(model, parameters)
        loss, accuracy = client.test(model, test_set)
        return loss, {"accuracy": accuracy}

    return evaluate


def parse_args() -> argparse.Namespace:
    """Parse and check the command line; a wrong value ends the process with exit code 2 and one sentence."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="rounds to run (default: %(default)s)")
    parser.add_argument(
        "--min_num_clients",
        type=whole_number(1),
        default=2,
        help="no round starts before that many clients are connected (default: %(default)s)",
    )
    parser.add_argument(
        "--sample_fraction",
        type=fraction,
        default=1.0,
        help="the part of the connected clients that takes part in a round, at least one (default: %(default)s)",
    )
    parser.add_argument(
        "--server_address",
        type=listen_address,
        default="0.0.0.0:8080",
        help="where to listen, HOST:PORT (default: %(default)s, all IPv4 addresses of this machine)",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
        default=3,
        help="passes of a client over its data in a round (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size", type=whole_number(1), default=16, help="images per training step (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluate_with",
        choices=("pytorch", "tf"),
        help="test the global model here too after each round, as a model of client_pytorch.py or client_tf.py",
    )
    parser.add_argument("--mnist", action="store_true", help="--evaluate_with uses MNIST (default: CIFAR-10)")
    add_data_dir(parser)
    parser.add_argument(
        "--results_dir",
        type=Path,
        default=Path("results", time.strftime("%Y-%m-%d-%H%M%S")),
        metavar="FOLDER",
        help="where the results go (default: results/<date-time>)",
    )
    args = parser.parse_args()
    if args.mnist and args.evaluate_with is None:
        parser.error("argument --mnist: only matters to --evaluate_with; the clients choose their data set themselves")
    if (args.results_dir / "rounds.csv").exists():
        parser.error(f"argument --results_dir: {args.results_dir} holds the results of another run")
    return args


if __name__ == "__main__":
    main()

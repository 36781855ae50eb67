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
from importlib import import_module
from typing import Callable

from federation.arguments import parse_server
from federation.partitions import load_test_split
from federation.serving import serve
from federation.strategy import DeviceFedAvg, weighted_average

from flwr.common import Metrics, NDArrays, Scalar


def main() -> None:
    """Run the server that the command line describes."""
    args = parse_server(__doc__)
    strategy = DeviceFedAvg(
        fraction_fit=args.sample_fraction,
        fraction_evaluate=args.sample_fraction,
        min_fit_clients=1,  # these two minimums would outweigh the fraction
        min_evaluate_clients=1,
        min_available_clients=args.min_num_clients,
        on_fit_config_fn=lambda server_round: fit_config(server_round, args),
        on_evaluate_config_fn=lambda server_round: {"server_round": server_round},
        evaluate_fn=central_evaluation(args),
        evaluate_metrics_aggregation_fn=weighted_average,
    )
    serve(strategy, args)


def fit_config(server_round: int, args: argparse.Namespace) -> dict[str, Scalar]:
    """Return what the clients are told about a round of training, besides the global model."""
    return {"server_round": server_round, "epochs": args.epochs, "batch_size": args.batch_size}


def central_evaluation(args: argparse.Namespace) -> Callable | None:
    """Return a function that tests the global model on the data set's test split, or None if not asked for."""
    if args.evaluate_with is None:
        return None
    client = import_module(f"client_{args.evaluate_with}")  # here, because only this needs torch or tensorflow
    model = client.build_model(args.dataset)
    test_set = load_test_split(args.dataset, args.data_dir)

    def evaluate(server_round: int, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, Metrics]:
        try:
            client.set_parameters(model, parameters)
        except (ValueError, RuntimeError):
            sys.exit(f"--evaluate_with {args.evaluate_with}: the clients do not train its model for {args.dataset}")
        loss, accuracy = client.test(model, test_set)
        return loss, {"accuracy": accuracy}

    return evaluate


if __name__ == "__main__":
    main()

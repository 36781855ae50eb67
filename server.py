"""Federated learning server: waits for clients, runs the rounds, averages the clients' models (FedAvg).

Start it on a laptop, then start a client on each device (see client_pytorch.py, client_tf.py):

    python server.py --rounds 3 --min_num_clients 2 --sample_fraction 1.0

The server knows neither the model nor the data set: it averages whatever arrays the clients send. Only for an
evaluation of its own it needs to be told both:

    python server.py --rounds 3 --min_num_clients 2 --evaluate_with pytorch --mnist

Clients with photos of their own (client_onnx.py --photos) are told what there is to tell apart:

    python server.py --rounds 1 --min_num_clients 2 --classes cup,spoon,nothing
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

from federation.data.partitions import Examples, load_test_split, test_class_names
from federation.data.pictures import PhotoFolder
from federation.flags import ArgumentParser, Failure, class_names, dataset_name, fraction, path, run_main, whole_number
from federation.server.flags import parse_server
from federation.server.serve import serve
from federation.server.strategy import DeviceFedAvg, weighted_average

import numpy as np
from flwr.common import NDArrays, Scalar
from flwr.server.strategy import Strategy


def main() -> None:
    """Run the server that the command line describes."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--min_num_clients",
        type=whole_number(1),
        default=2,
        help="no round starts before that many clients are connected (default: %(default)s)",
    )
    add_flags(parser)
    parser.add_argument("--mnist", action="store_true", help="--evaluate_with uses MNIST (default: CIFAR-10)")
    parser.add_argument(
        "--classes",
        type=class_names,
        default=[],
        help="the classes of clients with photos, such as cup,spoon (default: the folders of --photos here, or of the "
        "client that comes first)",
    )
    parser.add_argument(
        "--photos",
        type=path,
        metavar="FOLDER",
        help="--evaluate_with onnx uses these photos, in a folder for each class (default: CIFAR-10)",
    )
    args, settings = parse_server(parser)  # adds the flags of operation: address, time limits, folders, TLS, token
    if args.mnist and args.evaluate_with is None:
        parser.error("argument --mnist: only matters to --evaluate_with; the clients choose their data set themselves")
    photos, classes = None, args.classes
    if args.photos:
        if args.evaluate_with != "onnx" or args.mnist:
            parser.error("argument --photos: needs --evaluate_with onnx, without --mnist")
        photos = PhotoFolder(args.photos)
        classes = photos.choose_classes(args.classes)
    serve(build_strategy(args, photos), replace(settings, classes=classes))


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags that `build_strategy` knows; flower_app.py has them, too."""
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="rounds to run (default: %(default)s)")
    parser.add_argument(
        "--sample_fraction",
        type=fraction,
        default=1.0,
        help="the part of the connected clients that takes part in a round, at least one (default: %(default)s)",
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
        choices=("pytorch", "tf", "onnx"),
        help="test the global model here too after each round, as a model of client_pytorch.py, client_tf.py or "
        "client_onnx.py",
    )


def build_strategy(args: argparse.Namespace, photos: PhotoFolder | None = None) -> Strategy:
    """Return what decides who takes part in a round, what they do, and what becomes of their models.

    It tests models on `photos`, if there are some.
    """
    return DeviceFedAvg(
        fraction_fit=args.sample_fraction,
        fraction_evaluate=args.sample_fraction,
        min_fit_clients=1,  # these two minimums would outweigh the fraction
        min_evaluate_clients=1,
        min_available_clients=args.min_num_clients,
        on_fit_config_fn=lambda server_round: fit_config(server_round, args),
        on_evaluate_config_fn=lambda server_round: {"server_round": server_round},
        evaluate_fn=central_evaluation(args.evaluate_with, dataset_name(args.mnist), args.data_dir, photos),
        evaluate_metrics_aggregation_fn=weighted_average,
    )


def fit_config(server_round: int, args: argparse.Namespace) -> dict[str, Scalar]:
    """Return what the clients are told about a round of training, besides the model, a seed and `--fit_seconds`."""
    return {"server_round": server_round, "epochs": args.epochs, "batch_size": args.batch_size}


def central_evaluation(
    framework: str | None, dataset: str, data_dir: Path, photos: PhotoFolder | None
) -> Callable | None:
    """Return what tests the global model, on the data set's test split or `photos`; None without a framework.

    It tests one class after the other, no image twice: the model's loss and accuracy are the means over the classes,
    weighted by their images. The metric "classes" is what becomes rows of classes.csv.
    """
    if framework is None:
        return None
    client = import_module(f"client_{framework}")  # here, because only this needs torch or tensorflow
    if photos is None:
        model = client.build_model(dataset)
        test_set, names = load_test_split(dataset, data_dir), test_class_names(dataset, data_dir)
    else:
        model = client.build_model("photos", len(photos.classes))
        test_set, names = photos.read_test_set(), photos.classes
    labels = np.unique(test_set.labels)
    places = [np.flatnonzero(test_set.labels == label) for label in labels]
    classes = [Examples(test_set.images[place], test_set.labels[place]) for place in places]
    sizes = [len(place) for place in places]

    def evaluate(server_round: int, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, dict[str, Any]]:
        try:
            client.set_parameters(model, parameters)
        except (ValueError, RuntimeError):
            reason = (
                f"--evaluate_with {framework}: the clients do not train its model for {'photos' if photos else dataset}"
            )
            raise Failure(reason) from None
        results = [client.test(model, examples) for examples in classes]  # loss and accuracy of each class
        loss, accuracy = np.average(results, axis=0, weights=sizes).tolist()
        rows = [
            {"label": label, "class": names[label], "examples": size, "accuracy": of_class}
            for label, size, (_, of_class) in zip(labels.tolist(), sizes, results)
        ]
        return loss, {"accuracy": accuracy, "classes": rows}

    return evaluate


if __name__ == "__main__":
    run_main(main)

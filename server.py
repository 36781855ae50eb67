"""Federated learning server: waits for clients, runs the rounds, averages the clients' models (FedAvg).

Start it on a laptop, then start a client on each device (see client_pytorch.py, client_tf.py):

    python server.py --rounds 3 --min_num_clients 2 --sample_fraction 1.0

The server does not need to know the model or the data set: it averages whatever arrays the clients send. To test the
global model itself, it needs both:

    python server.py --rounds 3 --min_num_clients 2 --evaluate_with pytorch --mnist

For clients that learn from their own photos (client_onnx.py --photos), name the classes here:

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
        help="start a round only when at least this many clients are connected (default: %(default)s)",
    )
    add_flags(parser)
    parser.add_argument("--mnist", action="store_true", help="test on MNIST with --evaluate_with (default: CIFAR-10)")
    parser.add_argument(
        "--classes",
        type=class_names,
        default=[],
        help="class names for clients with photos, such as cup,spoon (default: the names of the folders in --photos "
        "here, or on the first client)",
    )
    parser.add_argument(
        "--photos",
        type=path,
        metavar="FOLDER",
        help="test on these photos with --evaluate_with onnx; FOLDER contains one folder per class (default: CIFAR-10)",
    )
    args, settings = parse_server(parser)  # adds the operational flags: address, time limits, folders, TLS, token
    if args.mnist and args.evaluate_with is None:
        parser.error("argument --mnist: needs --evaluate_with; the clients choose their data set themselves")
    photos, classes = None, args.classes
    if args.photos:
        if args.evaluate_with != "onnx" or args.mnist:
            parser.error("argument --photos: needs --evaluate_with onnx, without --mnist")
        photos = PhotoFolder(args.photos)
        classes = photos.choose_classes(args.classes)
    serve(build_strategy(args, photos), replace(settings, classes=classes))


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags that `build_strategy` reads; flower_app.py has them, too."""
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="number of rounds (default: %(default)s)")
    parser.add_argument(
        "--sample_fraction",
        type=fraction,
        default=1.0,
        help="fraction of the connected clients that take part in a round, at least one (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
        default=3,
        help="passes that a client makes over its data in each round (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size", type=whole_number(1), default=16, help="images per training step (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluate_with",
        choices=("pytorch", "tf", "onnx"),
        help="test the global model on the server, too, after each round: it is a model of client_pytorch.py, "
        "client_tf.py or client_onnx.py (default: only clients test it)",
    )


def build_strategy(args: argparse.Namespace, photos: PhotoFolder | None = None) -> Strategy:
    """Return the strategy: it selects the clients of a round, writes their instructions and averages their models.

    If there are `photos`, it tests the global model on them.
    """
    return DeviceFedAvg(
        fraction_fit=args.sample_fraction,
        fraction_evaluate=args.sample_fraction,
        min_fit_clients=1,  # Flower's default for these two, 2, would override a small fraction
        min_evaluate_clients=1,
        min_available_clients=args.min_num_clients,
        on_fit_config_fn=lambda server_round: fit_config(server_round, args),
        on_evaluate_config_fn=lambda server_round: {"server_round": server_round},
        evaluate_fn=central_evaluation(args.evaluate_with, dataset_name(args.mnist), args.data_dir, photos),
        evaluate_metrics_aggregation_fn=weighted_average,
    )


def fit_config(server_round: int, args: argparse.Namespace) -> dict[str, Scalar]:
    """Return the settings that clients receive for a fit, besides the model, a seed and `--fit_seconds`."""
    return {"server_round": server_round, "epochs": args.epochs, "batch_size": args.batch_size}


def central_evaluation(
    framework: str | None, dataset: str, data_dir: Path, photos: PhotoFolder | None
) -> Callable | None:
    """Return a function that tests the global model, on the data set's test split or `photos`; None without framework.

    It tests class by class: the model's loss and accuracy are the means over the classes, weighted by their number of
    images. The metric "classes" becomes the rows of classes.csv.
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
            data = "photos" if photos else dataset
            reason = f"--evaluate_with {framework}: the clients do not train the {framework} model for {data}"
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

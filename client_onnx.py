"""Federated learning client that learns a classifier on top of a pretrained network, on any board or laptop.

Start one on each device, as client_pytorch.py; the second one here learns from its own photos, in one folder per class:

    python client_onnx.py --cid=0
    python client_onnx.py --cid=1 --photos photos

The network, called the backbone, was trained on a million photos and does not change. It turns an image into 1,280
numbers, its features. A ridge regression predicts the class from them. It needs no training steps: its weights solve
equations whose terms are means over the images. The average of the clients' means is the mean over all images, so one
round is enough, however unevenly the images are spread (Fed3R, Fani et al., 2024).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable, Iterable

from federation.client.connection import stay_connected
from federation.client.flags import ClientSettings, parse_client
from federation.client.progress import FitProgress
from federation.data.hub import explained
from federation.data.partitions import Examples, load_partition
from federation.data.pictures import PhotoFolder, pictures_of
from federation.flags import ArgumentParser, Failure, path, run_main, whole_number
from federation.wire.addresses import server_address
from federation.wire.moments import matrix_of, triangle_of

import flwr as fl
import numpy as np
import onnxruntime
from flwr.common import NDArray, NDArrays, Scalar

NUM_CLIENTS = 50  # number of partitions of the data set, the same on all clients
BACKBONE = Path(__file__).with_name("backbone") / "efficientnet_lite0.onnx"
BACKBONE = BACKBONE if BACKBONE.exists() else Path("backbone", BACKBONE.name)  # a SuperNode gets only the scripts
BACKBONE_FEATURES, FEATURES = 1280, 960  # before and after `fold`
SIGNS = np.random.RandomState(0).choice([-1, 1], BACKBONE_FEATURES - FEATURES)  # the same on all devices
SIZE = 160  # height and width of the backbone's input; 224 takes 2.4 times as long for 1 % more accuracy
RIDGE = 1.0  # times the mean square of a feature

options = onnxruntime.SessionOptions()
seen: dict[bytes, NDArray | None] = {}  # features by the hash of an image; None: it cannot be decoded


def set_threads(number: int) -> None:
    """Set the number of threads that process an image."""
    options.intra_op_num_threads = number


def open_backbone() -> onnxruntime.InferenceSession:
    """Load the backbone; raises DataError if the file cannot be used."""
    advice = f"{BACKBONE.parent / 'README.md'} says where it comes from."
    with explained(f"Cannot use {BACKBONE}", advice, exit_code=2):
        BACKBONE.stat()  # its error is clearer than ONNX Runtime's
        backbone = onnxruntime.InferenceSession(str(BACKBONE), options, providers=["CPUExecutionProvider"])
        found = [(output.name, output.shape[1:]) for output in backbone.get_outputs()]
        if found != [("features", [BACKBONE_FEATURES])]:
            raise ValueError(f"its outputs are {found}, not {BACKBONE_FEATURES} features")
    return backbone


def fold(features: NDArray) -> NDArray:
    """Reduce the features to FEATURES numbers and append a 1: nearly halves the model, and hardly costs accuracy.

    The last features are added to the first, with random signs: feature hashing (Weinberger et al., 2009).
    """
    folded = np.append(features[:FEATURES], np.float32(1))
    folded[: len(SIGNS)] += SIGNS * features[FEATURES:]
    return folded


def look(examples: Examples, steps: Callable[[list], Iterable] = iter) -> tuple[NDArray, NDArray]:
    """Return the features of all images that can be decoded, float32 [n, FEATURES + 1], and their labels.

    Only new images go through the backbone. `steps` yields them one by one, and may stop early.
    """
    pictures = pictures_of(examples.images)
    new = [picture for picture in pictures if picture.key not in seen]
    if new:
        backbone = open_backbone()  # 50 MB, so not kept
        for picture in steps(new):
            pixels = picture.pixels(SIZE)
            seen[picture.key] = None if pixels is None else fold(backbone.run(None, {"images": pixels[None]})[0][0])
    known = [i for i, picture in enumerate(pictures) if seen.get(picture.key) is not None]
    return np.array([seen[pictures[i].key] for i in known]).reshape(-1, FEATURES + 1), examples.labels[known]


def moments(x: NDArray, y: NDArray, num_classes: int) -> NDArrays:
    """Return the means of x xT and x yT over features x and one-hot labels y (a 1 for the class, 0 for the others)."""
    one_hot = np.eye(num_classes, dtype=np.float32)[y]
    # Half precision is enough for both. The first matrix is symmetric: half of it is enough.
    return [triangle_of(x.T @ x / len(x)).astype(np.float16), (x.T @ one_hot / len(x)).astype(np.float16)]


def solve(parameters: NDArrays) -> NDArray:
    """Return the weights of the linear classifier that the moments determine, float32 [FEATURES + 1, classes].

    `x @ weights` is close to 1 for the class in the image and to 0 for the others. It is minus infinity for a class
    that no client has images of, which is therefore never predicted.
    """
    matrix, products = matrix_of(parameters[0]), parameters[1].astype(np.float64)
    matrix[np.diag_indices(len(matrix))] += RIDGE * np.trace(matrix) / len(matrix) + 1e-6
    weights = np.linalg.solve(matrix, products).astype(np.float32)
    weights[-1, products[-1] == 0] = -np.inf
    return weights


class Model:
    """A linear classifier on the backbone's features; it knows no class until it gets parameters."""

    def __init__(self, num_classes: int) -> None:
        self.weights = np.full((FEATURES + 1, num_classes), -np.inf, np.float32)


def build_model(dataset: str, num_classes: int = 10) -> Model:
    """Return an untrained model; the data sets "mnist" and "cifar10" have ten classes."""
    open_backbone()  # to fail now if it cannot be used
    return Model(num_classes)


def test(model: Model, examples: Examples) -> tuple[float, float]:
    """Return the mean squared error per example, summed over the classes, and the accuracy of the model."""
    x, y = look(examples)
    if not len(y):
        return 0.0, 0.0
    outputs = x @ model.weights  # [n, classes]
    known = np.isfinite(model.weights[-1])
    errors = (outputs - np.eye(outputs.shape[1])[y])[:, known]
    return float(np.square(errors).sum(1).mean()), float((outputs.argmax(1) == y).mean())


def get_parameters(model: Model) -> NDArrays:
    """Return the moments of no images, with which a run begins."""
    rows, num_classes = model.weights.shape
    return [np.zeros(rows * (rows + 1) // 2, np.float16), np.zeros((rows, num_classes), np.float16)]


def set_parameters(model: Model, parameters: NDArrays) -> None:
    """Set the model from moments; raises ValueError if they belong to another model."""
    found, expected = ([array.shape for array in arrays] for arrays in (parameters, get_parameters(model)))
    if found != expected:
        raise ValueError(f"the model has arrays of shapes {expected}, but the server sent {found}")
    model.weights = solve(parameters)


class FlowerClient(fl.client.NumPyClient):
    """The client on the device: in each round, Flower calls `fit`, then `evaluate`."""

    same_start = True  # all clients begin with the moments of no images, which need not be sent

    def __init__(self, dataset: str, train_set: Examples, validation_set: Examples) -> None:
        self.model = build_model(dataset)
        self.train_set, self.validation_set = train_set, validation_set

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """Return an untrained model; the server asks one client for it before the first round."""
        return get_parameters(self.model)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Return the moments of this client's images and the number of images; the global model is not needed."""
        seconds = float(config.get("fit_seconds", math.inf))
        x, y = look(self.train_set, lambda new: FitProgress(1, len(new), seconds).steps(new))
        if not len(y):
            raise Failure("there are no images to learn from here yet")
        return moments(x, y, self.model.weights.shape[1]), len(y), {}

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Test the global model on this client's validation images."""
        set_parameters(self.model, parameters)
        loss, accuracy = test(self.model, self.validation_set)
        _, tested = look(self.validation_set)  # only images that can be decoded
        return loss, len(tested), {"accuracy": accuracy}


class PhotoClient(FlowerClient):
    """A client with a folder of photos, which may change; it keeps the classifier there, for teach.py and others."""

    def __init__(self, photos: PhotoFolder) -> None:
        self.photos = photos
        super().__init__("photos", *photos.read())

    def choose_classes(self, told: list[str]) -> list[str]:
        """Take and return the classes that the server sent (`told`), or the names of the folders if it sent none."""
        classes = self.photos.choose_classes(told)
        self.model = Model(len(classes))
        return classes

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Read the photos again, then learn from them."""
        self.train_set, self.validation_set = self.photos.read()
        return super().fit(parameters, config)

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Test the global model, and keep it."""
        loss, tested, metrics = super().evaluate(parameters, config)
        accuracy = float(metrics["accuracy"]) if tested else math.nan
        self.photos.keep(self.model.weights, int(config.get("server_round", 1)), accuracy)
        return loss, tested, metrics


def make_client(settings: ClientSettings) -> FlowerClient:
    """Load this client's partition or find its photos, and take a share of this machine's cores."""
    settings.threads.share_cores(set_threads, most=4)
    if settings.dataset == "photos":
        return PhotoClient(PhotoFolder(settings.partitioning.data_dir))
    return FlowerClient(settings.dataset, *load_partition(settings.partitioning, settings.cid))


def main() -> None:
    """Make this client, and take part in the server's rounds."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--cid", type=whole_number(0), required=True, help="this client's number and partition: 0 to NUM_CLIENTS - 1"
    )
    parser.add_argument(
        "--server_address", type=server_address, help="HOST:PORT of the server (default: find it on the network)"
    )
    parser.add_argument("--mnist", action="store_true", help="learn the digits of MNIST (default: CIFAR-10)")
    parser.add_argument(
        "--photos", type=path, metavar="FOLDER", help="learn from your photos, one folder per class (default: none)"
    )
    args, settings = parse_client(parser, NUM_CLIENTS)  # adds the operational flags: folder, threads, TLS, token
    stay_connected(make_client(settings), settings)


if __name__ == "__main__":
    run_main(main)

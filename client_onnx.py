"""Federated learning client that looks at images with a network that is trained already, and learns what it sees.

Start one on each device, as client_pytorch.py; on a device with photos of its own, in a folder for each class:

    python client_onnx.py --cid=0 --server_address=192.168.1.10:8080
    python client_onnx.py --cid=1 --server_address=192.168.1.10:8080 --photos photos

The network, the backbone, has seen a million photos and stays as it is. It makes 1,280 numbers of an image, its
features. A ridge regression tells the classes by them, and has no steps of training: it is the solution of equations
whose terms are means over the images. The average of the clients' means is the mean over all of their images, so one
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
BACKBONE = BACKBONE if BACKBONE.exists() else Path("backbone", BACKBONE.name)  # of a SuperNode, which gets scripts only
BACKBONE_FEATURES, FEATURES = 1280, 960  # the second: what is made of them, see fold
SIGNS = np.random.RandomState(0).choice([-1, 1], BACKBONE_FEATURES - FEATURES)  # the same on all devices
SIZE = 160  # height and width of an image as the backbone sees it; 224 takes 2.4 times as long for 1 % more
RIDGE = 1.0  # times the mean square of a feature

options = onnxruntime.SessionOptions()
seen: dict[bytes, NDArray | None] = {}  # features by an image's content; None: it cannot be decoded


def set_threads(number: int) -> None:
    """Set the number of threads that look at an image."""
    options.intra_op_num_threads = number


def open_backbone() -> onnxruntime.InferenceSession:
    """Load the backbone; raises DataError if the file is not one."""
    advice = f"{BACKBONE.parent / 'README.md'} says where it comes from."
    with explained(f"Cannot use {BACKBONE}", advice, exit_code=2):
        BACKBONE.stat()  # its error is clearer than ONNX Runtime's
        backbone = onnxruntime.InferenceSession(str(BACKBONE), options, providers=["CPUExecutionProvider"])
        found = [(output.name, output.shape[1:]) for output in backbone.get_outputs()]
        if found != [("features", [BACKBONE_FEATURES])]:
            raise ValueError(f"it has the outputs {found}, and not {BACKBONE_FEATURES} features")
    return backbone


def fold(features: NDArray) -> NDArray:
    """Make FEATURES numbers of more, and a 1 after them, which nearly halves the model and hardly costs accuracy.

    The last are added to the first, with signs by chance: feature hashing (Weinberger et al., 2009).
    """
    folded = np.append(features[:FEATURES], np.float32(1))
    folded[: len(SIGNS)] += SIGNS * features[FEATURES:]
    return folded


def look(examples: Examples, steps: Callable[[list], Iterable] = iter) -> tuple[NDArray, NDArray]:
    """Return the features of all images that can be decoded, float32 [n, FEATURES + 1], and their labels.

    Only what is new goes through the backbone, and `steps` yields that one by one. It may end early.
    """
    pictures = pictures_of(examples.images)
    new = [picture for picture in pictures if picture.key not in seen]
    if new:
        backbone = open_backbone()  # 50 MB, and only for now
        for picture in steps(new):
            pixels = picture.pixels(SIZE)
            seen[picture.key] = None if pixels is None else fold(backbone.run(None, {"images": pixels[None]})[0][0])
    known = [i for i, picture in enumerate(pictures) if seen.get(picture.key) is not None]
    return np.array([seen[pictures[i].key] for i in known]).reshape(-1, FEATURES + 1), examples.labels[known]


def moments(x: NDArray, y: NDArray, num_classes: int) -> NDArrays:
    """Return the means of x xT and x yT over features x and labels y, each label as a row of zeros with a single 1."""
    one_hot = np.eye(num_classes, dtype=np.float32)[y]
    # Half precision is enough for both; of the first, which is symmetric, half of the matrix as well.
    return [triangle_of(x.T @ x / len(x)).astype(np.float16), (x.T @ one_hot / len(x)).astype(np.float16)]


def solve(parameters: NDArrays) -> NDArray:
    """Return the weights of the linear classifier that moments determine, float32 [FEATURES + 1, classes].

    `x @ weights` is then close to 1 for a class that is seen, and to 0 for others. It is never highest, but minus
    infinity, for a class that no client has an image of.
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
    open_backbone()  # to hear now if it cannot be used
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
    """Return moments of no images: with them a run begins."""
    rows, num_classes = model.weights.shape
    return [np.zeros(rows * (rows + 1) // 2, np.float16), np.zeros((rows, num_classes), np.float16)]


def set_parameters(model: Model, parameters: NDArrays) -> None:
    """Set the model from moments; raises ValueError if they are those of another model."""
    found, expected = ([array.shape for array in arrays] for arrays in (parameters, get_parameters(model)))
    if found != expected:
        raise ValueError(f"the model has arrays of shapes {expected}, but the server sent {found}")
    model.weights = solve(parameters)


class FlowerClient(fl.client.NumPyClient):
    """What Flower calls on the device: each round `fit`, then `evaluate`."""

    same_start = True  # all clients begin with moments of no images: they need not be sent

    def __init__(self, dataset: str, train_set: Examples, validation_set: Examples) -> None:
        self.model = build_model(dataset)
        self.train_set, self.validation_set = train_set, validation_set

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """Return an untrained model; the server asks one client for it before the first round."""
        return get_parameters(self.model)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Return the moments of this client's images, and how many images there were; the global model is no help."""
        seconds = float(config.get("fit_seconds", math.inf))
        x, y = look(self.train_set, lambda new: FitProgress(1, len(new), seconds).steps(new))
        if not len(y):
            raise Failure("there is no image to learn from here yet")
        return moments(x, y, self.model.weights.shape[1]), len(y), {}

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Test the global model on images of this client that it does not learn from."""
        set_parameters(self.model, parameters)
        loss, accuracy = test(self.model, self.validation_set)
        _, tested = look(self.validation_set)  # all but what cannot be decoded
        return loss, len(tested), {"accuracy": accuracy}


class PhotoClient(FlowerClient):
    """A client with a folder of photos, which may come and go; the classifier is kept there, for whoever uses it."""

    def __init__(self, photos: PhotoFolder) -> None:
        self.photos = photos
        super().__init__("photos", *photos.read())

    def choose_classes(self, told: list[str]) -> list[str]:
        """Take the classes that the server has `told`; the folders' names, if it has none. Return them."""
        classes = self.photos.choose_classes(told)
        self.model = Model(len(classes))
        return classes

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Read the photos anew, then learn from them."""
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
        "--cid", type=whole_number(0), required=True, help="which partition is this client's: 0 to NUM_CLIENTS - 1"
    )
    parser.add_argument(
        "--server_address", type=server_address, help="HOST:PORT (default: the server that is found on the network)"
    )
    parser.add_argument("--mnist", action="store_true", help="the digits of MNIST (default: CIFAR-10)")
    parser.add_argument(
        "--photos", type=path, metavar="FOLDER", help="photos of its own, in a folder for each class (default: none)"
    )
    args, settings = parse_client(parser, NUM_CLIENTS)  # adds the flags of operation: folder, threads, TLS, token
    stay_connected(make_client(settings), settings)


if __name__ == "__main__":
    run_main(main)

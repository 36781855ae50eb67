"""Federated learning client in PyTorch, for a Raspberry Pi, a Jetson or a laptop: trains on its own images.

Start one on each device, each with its own number. It finds the server on the network, or takes its address:

    python client_pytorch.py --cid=0
    python client_pytorch.py --cid=1 --server_address=192.168.1.10:8080

By default, it trains a MobileNet of 1.5 million parameters on CIFAR-10. On a small board, add --mnist for a small CNN.
"""

from __future__ import annotations

import math

from federation.client.connection import stay_connected
from federation.client.flags import ClientSettings, parse_client
from federation.client.progress import FitProgress
from federation.data.partitions import Examples, load_partition
from federation.flags import ArgumentParser, run_main, whole_number
from federation.light_import import AdamW, torchvision_models
from federation.wire.addresses import server_address

import flwr as fl
import torch
import torch.nn.functional as F
from flwr.common import NDArrays, Scalar
from torch import Tensor, nn

NUM_CLIENTS = 50  # number of partitions of the data set, the same on all clients
EPOCHS, BATCH_SIZE = 3, 16  # unless the server sends others, as ours does: see fit_config in server.py
LEARNING_RATE = {"cifar10": 1e-3, "mnist": 3e-3}  # at its peak
TEST_BATCH_SIZE = 128  # does not change the result; larger is faster but takes more memory
set_seed = torch.manual_seed  # for all random numbers

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def glorot(layer: nn.Module) -> None:
    """Initialize a layer as Keras does: weights from the range of Glorot and Bengio (2010), biases at 0."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def small_cnn() -> nn.Module:
    """Return a CNN for MNIST with 44,426 parameters: LeNet-5 (LeCun et al., 1998) with ReLU and max pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5),  # [n, 1, 28, 28] -> [n, 6, 24, 24]
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> [n, 6, 12, 12]
        nn.Conv2d(6, 16, kernel_size=5),  # -> [n, 16, 8, 8]
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> [n, 16, 4, 4]
        nn.Flatten(),  # -> [n, 256]
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ).apply(glorot)


def mobilenet() -> nn.Module:
    """Return MobileNetV3-small (Howard et al., 2019), adapted to small images and few training steps."""
    models = torchvision_models()  # like `from torchvision import models`, but 110 MB lighter
    model = models.mobilenet_v3_small(num_classes=10, dropout=0)  # dropout gains nothing in so few steps
    model.features[0][0].stride = (1, 1)  # the original halves images five times: 32 x 32 would end as 1 x 1
    for layer in model.modules():
        glorot(layer)  # learns more in the first rounds than with the original's initialization
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # with the original's 0.01, the statistics for evaluation lag behind for epochs
        if getattr(layer, "use_res_connect", False):
            nn.init.zeros_(layer.block[-1][1].weight)  # each block starts as the identity: averages well from round 1
    return model


def build_model(dataset: str) -> nn.Module:
    """Return an untrained model for `dataset`, "mnist" or "cifar10"."""
    model = small_cnn() if dataset == "mnist" else mobilenet()
    return model.to(DEVICE, memory_format=torch.channels_last)


def to_inputs(images: Tensor) -> Tensor:
    """Turn uint8 images [n, height, width, channels] into floats from -1 to 1 [n, channels, height, width]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(images: Tensor) -> Tensor:
    """Mirror a random half of the images [n, height, width, channels] and shift all of them by up to 3 pixels."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    shift = torch.randint(-3, 4, (2,)).tolist()
    return torch.where(mirrored, images.flip(2), images).roll(shift, dims=(1, 2))


def one_cycle(progress: float) -> float:
    """Return the learning rate after `progress` of a fit, both from 0 to 1: up, then down (Smith and Topin, 2018)."""
    return min(progress / 0.3, (1 - progress) / 0.7)


def train(
    model: nn.Module, examples: Examples, learning_rate: float, epochs: int, batch_size: int, seconds: float
) -> tuple[float, float]:
    """Train the model in place for `epochs`, or until `seconds` have passed.

    Return the mean loss per example in the last epoch, and the number of epochs done, such as 1.73.
    """
    num_batches = math.ceil(len(examples.labels) / batch_size)
    fit = FitProgress(epochs, num_batches, seconds)  # prints a progress line on a terminal
    images = torch.from_numpy(examples.images).to(DEVICE)  # uint8 [n, height, width, channels]
    labels = torch.from_numpy(examples.labels).to(DEVICE)  # int64 [n]
    is_colour = images.shape[3] == 3  # digits are not augmented: a mirrored 3 is not a 3
    optimizer = AdamW(model.parameters())  # as in torch.optim, but lighter
    model.train()
    while not fit.is_over:
        total_loss, num_examples = torch.zeros((), device=DEVICE), 0
        # Batches of nearly equal size, because BatchNorm cannot train on a last batch of one image.
        batches = torch.randperm(len(labels), device=DEVICE).tensor_split(num_batches)
        for batch in fit.steps(batches):
            inputs = to_inputs(augment(images[batch]) if is_colour else images[batch])
            loss = F.cross_entropy(model(inputs), labels[batch])
            model.zero_grad()
            loss.backward()
            optimizer.step(learning_rate * one_cycle(fit.fraction))
            total_loss += loss.detach() * len(batch)
            num_examples += len(batch)
    return total_loss.item() / num_examples, fit.epochs_done


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """Return the mean loss per example and the accuracy of the model."""
    images = torch.from_numpy(examples.images)
    labels = torch.from_numpy(examples.labels).to(DEVICE)
    total_loss, correct = 0.0, 0
    model.eval()
    for batch_images, batch_labels in zip(images.split(TEST_BATCH_SIZE), labels.split(TEST_BATCH_SIZE)):
        outputs = model(to_inputs(batch_images.to(DEVICE)))  # [batch, 10]
        total_loss += F.cross_entropy(outputs, batch_labels, reduction="sum").item()
        correct += (outputs.argmax(1) == batch_labels).sum().item()
    return total_loss / len(labels), correct / len(labels)


def shared_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what clients and server exchange: weights and BatchNorm statistics, by name, in order."""
    # Not BatchNorm's batch counters: they are integers, an average would make floats of them.
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def get_parameters(model: nn.Module) -> NDArrays:
    """Return the model as a list of arrays."""
    return [tensor.cpu().numpy() for tensor in shared_state(model).values()]


def set_parameters(model: nn.Module, parameters: NDArrays) -> None:
    """Set the model from a list of arrays; raises ValueError or RuntimeError if they belong to another model."""
    names = shared_state(model).keys()
    if len(names) != len(parameters):
        raise ValueError(f"the model has {len(names)} arrays, but the server sent {len(parameters)}")
    state = {name: torch.from_numpy(array) for name, array in zip(names, parameters)}
    model.load_state_dict(state, strict=False)  # not strict: the batch counters are missing


class FlowerClient(fl.client.NumPyClient):
    """The client on the device: in each round, Flower calls `fit`, then `evaluate`."""

    def __init__(self, dataset: str, train_set: Examples, validation_set: Examples) -> None:
        self.dataset = dataset
        self.model = build_model(dataset)
        self.learning_rate = LEARNING_RATE[dataset]
        self.train_set, self.validation_set = train_set, validation_set

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """Return an untrained model; the server asks one client for it before the first round."""
        if "seed" in config:
            set_seed(int(config["seed"]))
            self.model = build_model(self.dataset)
        return get_parameters(self.model)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train the global model on this client's images; return the new model and the number of images."""
        set_parameters(self.model, parameters)
        if "seed" in config:  # a different one for each client and round
            set_seed(int(config["seed"]))
        epochs, batch_size = int(config.get("epochs", EPOCHS)), int(config.get("batch_size", BATCH_SIZE))
        seconds = float(config.get("fit_seconds", math.inf))
        loss, epochs_done = train(self.model, self.train_set, self.learning_rate, epochs, batch_size, seconds)
        metrics: dict[str, Scalar] = {"train_loss": loss, "epochs": epochs_done}
        return get_parameters(self.model), len(self.train_set.labels), metrics

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Test the global model on this client's validation images."""
        set_parameters(self.model, parameters)
        loss, accuracy = test(self.model, self.validation_set)
        return loss, len(self.validation_set.labels), {"accuracy": accuracy}


def make_client(settings: ClientSettings) -> FlowerClient:
    """Load this client's partition, take a share of this machine's cores, and build the model."""
    train_set, validation_set = load_partition(settings.partitioning, settings.cid)
    settings.threads.share_cores(torch.set_num_threads, most=1 if DEVICE.type == "cuda" else 4)
    return FlowerClient(settings.dataset, train_set, validation_set)


def main() -> None:
    """Make this client, and take part in the server's rounds."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--cid", type=whole_number(0), required=True, help="this client's number and partition: 0 to NUM_CLIENTS - 1"
    )
    parser.add_argument(
        "--server_address", type=server_address, help="HOST:PORT of the server (default: find it on the network)"
    )
    parser.add_argument("--mnist", action="store_true", help="a small CNN on MNIST (default: MobileNet on CIFAR-10)")
    args, settings = parse_client(parser, NUM_CLIENTS)  # adds the operational flags: folder, threads, TLS, token
    stay_connected(make_client(settings), settings)


if __name__ == "__main__":
    run_main(main)

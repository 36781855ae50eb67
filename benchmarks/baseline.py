"""The baseline: training and evaluation as in the frameworks' tutorials, on float32 images in memory.

As a script, it prints how long fit and evaluate of a client take and how long the baseline's with the same model, as
JSON, for `client_costs.py`.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Callable

EPOCHS, BATCH_SIZE = 3, 16
LEARNING_RATE = 0.01  # PyTorch's; Keras chooses its own


def tensors(examples: Any) -> tuple[Any, Any]:
    """Return images from -1 to 1 [n, channels, height, width] and labels, for PyTorch."""
    from torch import from_numpy

    images = from_numpy(examples.images).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
    return images, from_numpy(examples.labels)


def train_pytorch(model: Any, images: Any, labels: Any, epochs: int, batch_size: int) -> None:
    """Train a model with torch.optim.SGD."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()


def test_pytorch(model: Any, images: Any, labels: Any, batch_size: int) -> tuple[float, float]:
    """Return the mean loss per example and the accuracy of a model."""
    import torch

    model.eval()
    correct, total_loss = 0, 0.0
    with torch.no_grad():
        for x, y in zip(images.split(batch_size), labels.split(batch_size)):
            outputs = model(x)
            total_loss += torch.nn.functional.cross_entropy(outputs, y, reduction="sum").item()
            correct += (outputs.argmax(1) == y).sum().item()
    return total_loss / len(labels), correct / len(labels)


def load_client(framework: str, seed: int) -> Any:
    """Return the client script as a module; one thread, and `seed` is the start of everything random."""
    client = import_module(f"client_{framework}")
    if framework == "pytorch":
        client.torch.set_num_threads(1)
        client.torch.manual_seed(seed)
    else:
        client.set_threads(1)
    if framework == "tf":
        client.keras.utils.set_random_seed(seed)
    return client


def tasks(framework: str, dataset: str, data_dir: Path) -> dict[str, Callable[[], object]]:
    """Return fit and evaluate of a client and of the baseline, by name."""
    from federation.data.partitions import Partitioning

    client = load_client(framework, seed=0)
    train_set, validation_set = client.load_partition(Partitioning(dataset, data_dir, 1), 0)
    flower_client = client.FlowerClient(dataset, train_set, validation_set)
    parameters = [array.copy() for array in flower_client.get_parameters({})]
    model = client.small_cnn() if dataset == "mnist" else client.mobilenet()
    if framework == "pytorch":
        baseline_fit = partial(train_pytorch, model, *tensors(train_set), EPOCHS, BATCH_SIZE)
        baseline_evaluate = partial(test_pytorch, model, *tensors(validation_set), client.TEST_BATCH_SIZE)
    else:
        train_data, test_data = ((x.astype("float32"), y) for x, y in (train_set, validation_set))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        baseline_fit = partial(model.fit, *train_data, BATCH_SIZE, EPOCHS, verbose=0)
        baseline_evaluate = partial(model.evaluate, *test_data, client.TEST_BATCH_SIZE, verbose=0)
    return {
        "fit": lambda: flower_client.fit(parameters, {"epochs": EPOCHS, "batch_size": BATCH_SIZE}),
        "baseline fit": baseline_fit,
        "evaluate": lambda: flower_client.evaluate(parameters, {}),
        "baseline evaluate": baseline_evaluate,
    }


def main(framework: str, dataset: str, data_dir: str, repeat: str) -> None:
    """Print the median seconds of each task; they run in turn, and the first time does not count."""
    sys.path.insert(0, str(Path.cwd()))
    measured = tasks(framework, dataset, Path(data_dir))
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(int(repeat) + 1):
        for name, task in measured.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    print(json.dumps({name: median(times[1:]) for name, times in seconds.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

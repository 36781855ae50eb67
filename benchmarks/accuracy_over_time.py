"""Accuracy by the seconds of training, ours beside the baseline: draws a picture.

    python benchmarks/accuracy_over_time.py --data_dir data --picture _static/accuracy_over_time.png

CIFAR-10 in PyTorch with 2 and with 5 clients, each with one of 5 partitions; rounds of 3 epochs, batches of 16. The
baseline is torchvision's MobileNetV3-small as it is, trained as in baseline.py, without augmentation. Both train on one
thread, in turn, until `--seconds` of training are used up in each client, as if every client had a device like this
one. The averaged models are tested on the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Sequence

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Examples, Partitioning, load_partition, load_test_split
from federation.flags import path

import baseline
import torch
from accuracy import simulate
from common import versions
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.models import mobilenet_v3_small


def baseline_of(client: Any) -> SimpleNamespace:
    """Return a client that trains the baseline and does the rest like `client`."""

    def build_model(dataset: str) -> torch.nn.Module:
        model = mobilenet_v3_small(num_classes=10)
        torch.optim.SGD(model.parameters())  # the first one imports PyTorch's compiler; that is not to count
        return model

    def train(
        model: torch.nn.Module, examples: Examples, rate: float, epochs: int, batch_size: int, seconds: float
    ) -> None:
        baseline.train_pytorch(model, *baseline.tensors(examples), epochs, batch_size)

    same = {name: getattr(client, name) for name in ("test", "get_parameters", "set_parameters")}
    rate = {"cifar10": baseline.LEARNING_RATE}
    return SimpleNamespace(build_model=build_model, train=train, LEARNING_RATE=rate, **same)


def draw(axis: Axes, name: str, client: Any, train_sets: Sequence[Examples], test_set: Examples, limit: float) -> None:
    """Train for `limit` seconds, one round at least; draw a curve and print a line."""
    torch.manual_seed(0)
    elapsed, points = 0.0, []
    for seconds, accuracy in simulate(client, "cifar10", train_sets, test_set, epochs=3, batch_size=16):
        elapsed += seconds
        if points and elapsed > limit:
            break
        points.append((elapsed, 100 * accuracy))
    axis.plot(*zip(*points), marker=".", label=name)
    best = ", ".join(f"{accuracy:.1f} % at {at:.0f} s" for at, accuracy in points[:: max(1, len(points) // 6)])
    print(
        f"{len(train_sets)} clients, {name}: {len(points)} rounds, {best}, in the end {points[-1][1]:.1f} %", flush=True
    )


def main() -> None:
    """Run the federations, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=path, required=True)
    parser.add_argument("--picture", type=path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    print(versions())
    client = baseline.load_client("pytorch", seed=0)
    test_set = load_test_split("cifar10", args.data_dir)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axis, count in zip(figure.subplots(1, len(args.clients), sharey=True, squeeze=False)[0], args.clients):
        train_sets = [load_partition(Partitioning("cifar10", args.data_dir, 5), cid)[0] for cid in range(count)]
        for name, recipe in (("ours", client), ("baseline", baseline_of(client))):
            draw(axis, name, recipe, train_sets, test_set, args.seconds)
        axis.set(
            title=f"{count} clients of {len(train_sets[0].labels)} images", xlabel="seconds of training per client"
        )
        axis.grid(alpha=0.3)
        axis.legend()
    figure.axes[0].set_ylabel("accuracy on test images, %")
    args.picture.parent.mkdir(exist_ok=True)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()

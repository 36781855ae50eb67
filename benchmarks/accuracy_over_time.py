"""Accuracy by the seconds of training, of client_pytorch.py and client_onnx.py beside the baseline: draws a picture.

    python benchmarks/accuracy_over_time.py --data_dir data --picture _static/accuracy_over_time.png

CIFAR-10 with 2 and with 5 clients, each with one of 5 partitions; rounds of 3 epochs, batches of 16. The baseline is
torchvision's MobileNetV3-small as it is, trained as in baseline.py, without augmentation. All train on one thread, in
turn, until `--seconds` of training are used up in each client, as if every client had a device like this one; what
client_onnx.py knows after its first round stays the same. The averaged models are tested on the test split.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Sequence

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Examples, Partitioning, load_partition, load_test_split

import baseline
import torch
from accuracy import simulate
from common import parser_of, versions
from flwr.common import NDArrays, Scalar
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.models import mobilenet_v3_small

import client_onnx
import client_pytorch


class Baseline(client_pytorch.FlowerClient):
    """A client that trains the baseline and does the rest like ours."""

    def __init__(self, *data: Any) -> None:
        super().__init__(*data)
        self.model = mobilenet_v3_small(num_classes=10)
        torch.optim.SGD(self.model.parameters())  # the first imports PyTorch's compiler; that is not to count

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train from the global model on."""
        client_pytorch.set_parameters(self.model, parameters)
        baseline.train_pytorch(self.model, *baseline.tensors(self.train_set), **config)
        return client_pytorch.get_parameters(self.model), len(self.train_set.labels), {}


def draw(axis: Axes, name: str, client: type, train_sets: Sequence[Examples], test_set: Examples, limit: float) -> None:
    """Train for `limit` seconds, one round at least; draw a curve and print a line."""
    torch.manual_seed(0)
    elapsed, points = 0.0, []
    for seconds, accuracy in simulate(client, "cifar10", train_sets, test_set, epochs=3, batch_size=16):
        elapsed += seconds
        if points and elapsed > limit:
            break
        points.append((elapsed, 100 * accuracy))
        if name == "client_onnx.py":  # more rounds make the same model
            axis.hlines(100 * accuracy, elapsed, limit, "C0", "dotted")
            break
    axis.plot(*zip(*points), marker=".", label=name)
    some = ", ".join(f"{accuracy:.1f} % at {at:.1f} s" for at, accuracy in points[:: max(1, len(points) // 6)])
    end = f"in the end {points[-1][1]:.1f} %"
    print(f"{len(train_sets)} clients, {name}: {len(points)} rounds, {some}, {end}", flush=True)


def main() -> None:
    """Run the federations, print a table and draw the picture."""
    args = parser_of(__doc__, data_dir=Path, picture=Path, clients=[2, 5], seconds=60.0).parse_args()
    print(versions())
    for framework in ("pytorch", "onnx"):
        baseline.load_client(framework, seed=0)  # on one thread
    ours = {"client_onnx.py": client_onnx.FlowerClient, "client_pytorch.py": client_pytorch.FlowerClient}
    test_set = load_test_split("cifar10", args.data_dir)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axis, count in zip(figure.subplots(1, len(args.clients), sharey=True, squeeze=False)[0], args.clients):
        train_sets = [load_partition(Partitioning("cifar10", args.data_dir, 5), cid)[0] for cid in range(count)]
        client_onnx.seen.clear()
        for name, client in {**ours, "baseline": Baseline}.items():
            draw(axis, name, client, train_sets, test_set, args.seconds)
        axis.set(title=f"{count} clients of {len(train_sets[0].labels)} images", ylim=(0, 100))
        axis.set(xlabel="seconds of training per client", xlim=(0, args.seconds))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy on test images, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    args.picture.parent.mkdir(exist_ok=True)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()

"""Accuracy by the seconds of training, ours beside plain SGD: draws a picture.

    python benchmarks/accuracy_over_time.py --data_dir data --picture _static/accuracy_over_time.png

CIFAR-10 in PyTorch with 2 and with 5 clients, each with one of 5 partitions; rounds of 3 epochs, batches of 16. "plain"
is torchvision's MobileNetV3-small as it is and SGD with a rate of 0.01 and momentum 0.9, without augmentation. Both
train on one thread, in turn, until `--seconds` of training are used up in each client, as if every client had a device
like this one. The averaged models are tested on the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.partitions import load_partition, load_test_split

import torch
import torch.nn.functional as F
from accuracy import federate, load_client
from common import versions
from matplotlib.figure import Figure


def plain(client) -> SimpleNamespace:
    """Return a client that trains plainly and does the rest like `client`."""

    def build_model(dataset):
        from torchvision.models import mobilenet_v3_small

        model = mobilenet_v3_small(num_classes=10)
        torch.optim.SGD(model.parameters())  # the first one imports PyTorch's compiler; that is not to count
        return model

    def train(model, examples, learning_rate, epochs, batch_size):
        images = torch.from_numpy(examples.images).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
        labels = torch.from_numpy(examples.labels)
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
        model.train()
        for _ in range(epochs):
            for batch in torch.randperm(len(labels)).tensor_split(-(-len(labels) // batch_size)):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()

    same = {name: getattr(client, name) for name in ("test", "get_parameters", "set_parameters")}
    return SimpleNamespace(build_model=build_model, train=train, LEARNING_RATE={"cifar10": 0.01}, **same)


def main() -> None:
    """Run the federations, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    print(versions())
    client = load_client("pytorch", seed=0)
    test_set = load_test_split("cifar10", args.data_dir)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axis, count in zip(figure.subplots(1, len(args.clients), sharey=True, squeeze=False)[0], args.clients):
        parts = [load_partition("cifar10", cid, 5, args.data_dir)[0] for cid in range(count)]
        for name, recipe in (("ours", client), ("plain SGD", plain(client))):
            torch.manual_seed(0)
            elapsed, points = 0.0, []
            for seconds, accuracy in federate(recipe, "cifar10", parts, test_set, epochs=3, batch_size=16):
                elapsed += seconds
                if elapsed > args.seconds:
                    break
                points.append((elapsed, 100 * accuracy))
            axis.plot(*zip(*points), marker=".", label=name)
            best = ", ".join(f"{accuracy:.1f} % at {at:.0f} s" for at, accuracy in points[:: max(1, len(points) // 6)])
            print(
                f"{count} clients, {name}: {len(points)} rounds, {best}, in the end {points[-1][1]:.1f} %", flush=True
            )
        axis.set(title=f"{count} clients of {len(parts[0].labels)} images", xlabel="seconds of training per client")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.axes[0].set_ylabel("accuracy on test images, %")
    args.picture.parent.mkdir(exist_ok=True)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()

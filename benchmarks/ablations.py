"""Ways to make the PyTorch client faster or smaller, each against doing without it: what paid off and what did not.

    python benchmarks/ways.py

Times are the shortest of several, taken in turn, on one thread; memory is the peak of the client's process in a
federation of one round. Each line is the time or memory with the way, divided by that without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from common import NUM_IMAGES, noise, print_row, versions

import client_pytorch as client

REPEAT = 4


def ratio(with_it: Callable[[], object], without: Callable[[], object]) -> str:
    """Return the time of the first over that of the second."""
    best = [float("inf"), float("inf")]
    for _ in range(REPEAT + 1):
        for i, task in enumerate((with_it, without)):
            started = time.perf_counter()
            task()
            best[i] = min(best[i], time.perf_counter() - started)
    return f"{best[0] / best[1]:.2f}"


def training(
    dataset: str, memory_format: torch.memory_format = torch.channels_last, fused: bool = True, threads: int = 1
) -> Callable:
    """Return a function that trains for an epoch, with images and model in the memory format."""
    to_inputs = client.to_inputs
    examples = noise(dataset, NUM_IMAGES[dataset] // 2)
    model = client.build_model(dataset).to(memory_format=memory_format)

    def train() -> None:
        torch.set_num_threads(threads)
        with mock.patch.multiple(
            client,
            HAS_FUSED_ADAMW=fused,
            to_inputs=lambda images: to_inputs(images).contiguous(memory_format=memory_format),
        ):
            client.train(model, examples, 1e-3, epochs=1, batch_size=16)

    return train


def evaluation(dataset: str, batch_size: int = 128, gradients: bool = False) -> Callable:
    """Return a function that evaluates; with gradients, as without torch.inference_mode."""
    examples = noise(dataset, NUM_IMAGES[dataset])
    model = client.build_model(dataset)
    test = client.test.__wrapped__ if gradients else client.test

    def evaluate() -> None:
        torch.set_num_threads(1)
        with mock.patch.object(client, "TEST_BATCH_SIZE", batch_size):
            test(model, examples)

    return evaluate


def import_cost(code: str) -> tuple[float, float]:
    """Return the seconds and megabytes that a process takes for `code` beyond importing torch."""
    report = (
        "import time, torch\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        f"seconds, megabytes = time.perf_counter(), peak()\n{code}\n"
        "print(time.perf_counter() - seconds, peak() - megabytes)\n"
    )
    root = str(Path(__file__).parent.parent)
    output = subprocess.run([sys.executable, "-c", report], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    seconds, megabytes = output.stdout.split()
    return float(seconds), float(megabytes)


def peak(dataset: str, **environment: str) -> float:
    """Return the peak megabytes of a client.

    The federation is started from a small process: the kernel counts the memory of the process that starts another one
    as the other's, too.
    """
    code = (
        "import sys, tempfile, common; from pathlib import Path\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        f"    common.write_partitions({dataset!r}, 1, Path(folder))\n"
        f"    print(common.run_federation('pytorch', {dataset!r}, Path(folder)).peak_mb)\n"
    )
    command = [sys.executable, "-c", code]
    settings = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parent)}
    return float(subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measure and print the table."""
    print(versions())
    print_row("way", "MNIST", "CIFAR-10")
    print_row("---", "---", "---")
    datasets = ("mnist", "cifar10")

    def times(name: str, with_it: Callable[[str], Callable], without: Callable[[str], Callable]) -> None:
        print_row(f"{name}: time", *(ratio(with_it(dataset), without(dataset)) for dataset in datasets))

    times("channels_last", training, lambda dataset: training(dataset, torch.contiguous_format))
    times("fused AdamW", training, lambda dataset: training(dataset, fused=False))
    times("two threads", lambda dataset: training(dataset, threads=2), training)
    times("inference mode", evaluation, lambda dataset: evaluation(dataset, gradients=True))
    times("evaluation in batches of 128, not 16", evaluation, lambda dataset: evaluation(dataset, 16))
    times("evaluation in batches of 512, not 128", lambda dataset: evaluation(dataset, 512), evaluation)

    usual = {dataset: peak(dataset) for dataset in datasets}
    for name, setting in (
        ("one malloc arena", {"MALLOC_ARENA_MAX": "1"}),
        ("early trim", {"MALLOC_TRIM_THRESHOLD_": "65536"}),
    ):
        print_row(f"{name}: memory", *(f"{peak(dataset, **setting) / usual[dataset]:.2f}" for dataset in datasets))

    light = import_cost("from federation.light_import import torchvision_models\ntorchvision_models()")
    full = import_cost("import torchvision.models")
    print_row("torchvision's models alone: time", "-", f"{light[0] / full[0]:.2f}")
    print_row("torchvision's models alone: memory", "-", f"{light[1]:.0f} instead of {full[1]:.0f} MB")


if __name__ == "__main__":
    main()

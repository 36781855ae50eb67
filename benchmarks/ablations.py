"""Ablations: what makes the PyTorch client faster or smaller, each against doing without it.

    python benchmarks/ablations.py

Times are the shortest of several, taken in turn, on one thread; memory is the peak of the client's process in a
federation of one round. Each line is the time or memory with the measure, divided by that without.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterable
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.client import power
from federation.client.light_import import AdamW

import torch
from common import NUM_IMAGES, noise, print_head, print_row, versions
from processes import ROOT

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

    def optimizer(parameters: Iterable[torch.Tensor]) -> AdamW:
        adamw = AdamW(parameters)
        adamw.fused = fused
        return adamw

    def train() -> None:
        torch.set_num_threads(threads)
        with mock.patch.multiple(
            client,
            AdamW=optimizer,
            to_inputs=lambda images: to_inputs(images).contiguous(memory_format=memory_format),
        ):
            client.train(model, examples, 1e-3, epochs=1, batch_size=16, seconds=math.inf)

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
    seconds, megabytes = subprocess.check_output([sys.executable, "-c", report], cwd=ROOT).split()
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
        f"    print(common.peak_mb(common.run_federation('pytorch', {dataset!r}, Path(folder))))\n"
    )
    command = [sys.executable, "-c", code]
    settings = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parent)}
    return float(subprocess.check_output(command, env=settings))


def compare_times() -> None:
    """Print the lines about training and evaluation."""

    def row(name: str, with_it: Callable[[str], Callable], without: Callable[[str], Callable]) -> None:
        print_row(f"{name}: time", *(ratio(with_it(dataset), without(dataset)) for dataset in NUM_IMAGES))

    row("channels_last", training, lambda dataset: training(dataset, torch.contiguous_format))
    row("fused AdamW", training, lambda dataset: training(dataset, fused=False))
    row("two threads", lambda dataset: training(dataset, threads=2), training)
    row("inference mode", evaluation, lambda dataset: evaluation(dataset, gradients=True))
    row("evaluation in batches of 128, not 16", evaluation, lambda dataset: evaluation(dataset, 16))
    row("evaluation in batches of 512, not 128", lambda dataset: evaluation(dataset, 512), evaluation)


def compare_peaks() -> None:
    """Print the lines about memory."""
    usual = {dataset: peak(dataset) for dataset in NUM_IMAGES}
    settings = {"one malloc arena": {"MALLOC_ARENA_MAX": "1"}, "early trim": {"MALLOC_TRIM_THRESHOLD_": "65536"}}
    for name, setting in settings.items():
        print_row(f"{name}: memory", *(f"{peak(dataset, **setting) / usual[dataset]:.2f}" for dataset in NUM_IMAGES))


def compare_imports() -> None:
    """Print the lines about torchvision, which only CIFAR-10 needs."""
    light = import_cost("from federation.client.light_import import torchvision_models\ntorchvision_models()")
    full = import_cost("import torchvision.models")
    print_row("torchvision's models alone: time", "-", f"{light[0] / full[0]:.2f}")
    print_row("torchvision's models alone: memory", "-", f"{light[1]:.0f} instead of {full[1]:.0f} MB")


def sampling() -> None:
    """Print the line about sampling a Raspberry Pi 5's power, as a share of one core; vcgencmd is a stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        vcgencmd = Path(folder, "vcgencmd")
        rails = "VDD_CORE_A 'current(7)=1.5A' VDD_CORE_V 'volt(15)=0.88V'"
        vcgencmd.write_text(f"#!/bin/sh\n[ $1 = get_throttled ] && echo throttled=0x0 || echo {rails}\n")
        vcgencmd.chmod(0o755)
        before = sum(os.times()[:4])  # processor time, that of ended children included
        for _ in range(100):
            power.pmic_watts(str(vcgencmd))
            power.read_throttled(str(vcgencmd))
        share = (sum(os.times()[:4]) - before) / 100 / power.INTERVAL
    print_row("power sampled with vcgencmd: time", *[f"{1 + share:.3f}"] * 2)


def main() -> None:
    """Measure and print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(versions())
    print_head("ablation", "MNIST", "CIFAR-10")
    compare_times()
    compare_peaks()
    compare_imports()
    sampling()


if __name__ == "__main__":
    main()

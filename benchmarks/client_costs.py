"""What a client takes, beside what it cannot do without: seconds to start, memory, seconds to train and to evaluate.

    python benchmarks/client.py
    python benchmarks/client.py --frameworks pytorch --datasets mnist --repeat 5

- "start" is from the start of the process until the server sees the client, its partition being prepared and the
  number of threads known; beside it a process that imports the framework and flwr.client and ends.
- "peak" is the memory of the client's process at its largest, over that of these imports.
- "fit" and "evaluate" are those of the script's FlowerClient, from parameters to results, with one thread, 3 epochs
  and batches of 16; beside them the bare loop of the framework's tutorials on the same model and as many images, which
  are float32 in memory: PyTorch's with torch.optim.SGD, Keras's `model.fit` on arrays. Both run in turn in one process.

Medians of the repetitions, after a first one that does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from common import NUM_IMAGES, ROOT, noise, print_row, run_federation, versions, write_partitions

MODULE = {"pytorch": "torch", "tf": "tensorflow"}
CONFIG = {"epochs": 3, "batch_size": 16, "server_round": 1}


def imports(framework: str) -> tuple[float, float]:
    """Return the seconds from a process's start until its imports are done, and its peak megabytes."""
    code = (
        f"import resource, {MODULE[framework]}, flwr.client\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)\n"
    )
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = float(process.stdout.readline())
    seconds = time.perf_counter() - started
    process.wait(60)
    return seconds, peak


def bare_pytorch(client, dataset: str, train_set, validation_set):
    """Return the tutorials' training and evaluation of the same model, as functions."""
    import torch
    import torch.nn.functional as F

    model = client.small_cnn() if dataset == "mnist" else client.mobilenet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    (images, labels), (test_images, test_labels) = (
        (
            torch.from_numpy(examples.images).permute(0, 3, 1, 2).float().contiguous() / 255,
            torch.from_numpy(examples.labels),
        )
        for examples in (train_set, validation_set)
    )

    def fit():
        model.train()
        for _ in range(CONFIG["epochs"]):
            for batch in torch.randperm(len(labels)).split(CONFIG["batch_size"]):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                loss.backward()
                optimizer.step()

    def evaluate():
        model.eval()
        correct, total_loss = 0, 0.0
        with torch.no_grad():
            for x, y in zip(test_images.split(client.TEST_BATCH_SIZE), test_labels.split(client.TEST_BATCH_SIZE)):
                outputs = model(x)
                total_loss += F.cross_entropy(outputs, y, reduction="sum").item()
                correct += (outputs.argmax(1) == y).sum().item()

    return fit, evaluate


def bare_tf(client, dataset: str, train_set, validation_set):
    """Return the tutorials' training and evaluation of the same model, as functions."""
    model = client.small_cnn() if dataset == "mnist" else client.mobilenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, test_images = train_set.images.astype(np.float32), validation_set.images.astype(np.float32)

    def fit():
        model.fit(images, train_set.labels, epochs=CONFIG["epochs"], batch_size=CONFIG["batch_size"], verbose=0)

    def evaluate():
        model.evaluate(test_images, validation_set.labels, batch_size=client.TEST_BATCH_SIZE, verbose=0)

    return fit, evaluate


def compare_training(framework: str, dataset: str, repeat: int) -> None:
    """Print the medians of fit and evaluate, ours and bare, as JSON."""
    client = import_module(f"client_{framework}")
    if framework == "pytorch":
        client.torch.set_num_threads(1)
    else:
        client.set_threads(1)
    num_test = NUM_IMAGES[dataset] // 10
    examples = noise(dataset, NUM_IMAGES[dataset] - num_test), noise(dataset, num_test)
    flower_client = client.FlowerClient(dataset, *examples)
    parameters = [array.copy() for array in flower_client.get_parameters({})]
    bare_fit, bare_evaluate = (bare_pytorch if framework == "pytorch" else bare_tf)(client, dataset, *examples)
    tasks = {
        "fit": lambda: flower_client.fit(parameters, CONFIG),
        "bare fit": bare_fit,
        "evaluate": lambda: flower_client.evaluate(parameters, CONFIG),
        "bare evaluate": bare_evaluate,
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeat + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    print(json.dumps({name: statistics.median(times[1:]) for name, times in seconds.items()}))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", default=list(MODULE), choices=list(MODULE))
    parser.add_argument("--datasets", nargs="+", default=list(NUM_IMAGES), choices=list(NUM_IMAGES))
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each kind (default: %(default)s)")
    parser.add_argument("--training", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.training:
        compare_training(*args.training, args.repeat)
        return

    print(versions())
    print_row("client", "start", "imports", "ratio", "peak", "fit", "bare", "ratio", "evaluate", "bare", "ratio")
    print_row(*["---"] * 11)
    with tempfile.TemporaryDirectory() as folder:
        for framework in args.frameworks:
            imports(framework)  # the first one reads the files from the disk
            for dataset in args.datasets:
                write_partitions(dataset, 1, Path(folder))
                run_federation(framework, dataset, Path(folder))  # finds out the number of threads
                pairs = [
                    (imports(framework), run_federation(framework, dataset, Path(folder))) for _ in range(args.repeat)
                ]
                floor, floor_mb = (statistics.median(pair[0][i] for pair in pairs) for i in (0, 1))
                start = statistics.median(federation.start_seconds for _, federation in pairs)
                peak_mb = statistics.median(federation.peak_mb for _, federation in pairs)
                command = [sys.executable, __file__, "--training", framework, dataset, "--repeat", str(args.repeat)]
                output = subprocess.run(
                    command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                s = json.loads(output.stdout.splitlines()[-1])
                print_row(
                    *(f"{framework}, {dataset}", f"{start:.2f} s", f"{floor:.2f} s", f"{start / floor:.2f}"),
                    f"{peak_mb - floor_mb:.0f} MB",
                    *(f"{s['fit']:.2f} s", f"{s['bare fit']:.2f} s", f"{s['fit'] / s['bare fit']:.2f}"),
                    *(f"{1000 * s['evaluate']:.0f} ms", f"{1000 * s['bare evaluate']:.0f} ms"),
                    f"{s['evaluate'] / s['bare evaluate']:.2f}",
                )


if __name__ == "__main__":
    main()

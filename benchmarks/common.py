"""What the benchmarks share: data that needs no download, and federations of real processes."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))
import numpy as np
from flwr.server.strategy import FedAvg
from processes import Federation, Processes, federate

IMAGE_SHAPE = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
NUM_IMAGES = {"mnist": 2250, "cifar10": 1000}  # a client's; a tenth of them is for validation
TIMEOUT = 3600  # seconds; for a federation


def write_partitions(dataset: str, num_clients: int, data_dir: Path, count: int | None = None) -> None:
    """Make a data folder with partitions of noise, which takes as long as images, where clients look for theirs."""
    random, count = np.random.default_rng(0), count or NUM_IMAGES[dataset]
    images = random.integers(0, 256, size=(count, *IMAGE_SHAPE[dataset]), dtype=np.uint8)
    labels = random.integers(0, 10, size=count)
    folder = data_dir / dataset / str(num_clients)
    folder.mkdir(parents=True, exist_ok=True)
    for cid in range(num_clients):
        np.savez(folder / f"{cid}.npz", images=images, labels=labels)


def run_federation(
    framework: str, dataset: str, data_dir: Path, num_clients: int = 1, rounds: int = 1, *more: object
) -> Federation:
    """Run the real server and clients, with `more` flags for these, on partitions of `write_partitions`."""
    flags = (*more, "--num_clients", num_clients, "--data_dir", data_dir, *(["--mnist"] if dataset == "mnist" else []))
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        script = f"client_{framework}.py"
        return federate(processes, script, ("--rounds", rounds), flags, num_clients, timeout=TIMEOUT)


def peak_mb(federation: Federation) -> float:
    """Return the peak megabytes of the largest client, as the clients tell; CUDA's PyTorch takes more at its exit."""
    return max(float(row["peak_memory_mb"]) for row in federation.client_rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as they are by now; none, if there is no such file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TimedFedAvg(FedAvg):
    """Flower's FedAvg over `count` clients, with a note of each round."""

    def __init__(self, count: int, **arguments: Any) -> None:
        minimum = dict.fromkeys(("min_fit_clients", "min_evaluate_clients", "min_available_clients"), count)
        super().__init__(**minimum, **arguments)
        self.rounds: list[tuple[int, float]] = []  # clients, seconds

    def configure_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Start the clock."""
        self.started = time.monotonic()
        return super().configure_fit(*args, **kwargs)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        """Stop the clock; print the seconds."""
        aggregated = super().aggregate_evaluate(server_round, results, failures)
        self.rounds.append((len(results), time.monotonic() - self.started))
        print(f"round {server_round}: {len(results)} tests, {self.rounds[-1][1]:.1f} s", flush=True)
        return aggregated


def versions() -> str:
    """Return a line about this machine and the versions of what is measured."""
    found = [f"{os.cpu_count()} cores", f"Python {sys.version.split()[0]}"]
    for name in ("flwr", "torch", "tensorflow", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) + time.strftime(", %Y-%m-%d")


def print_head(*columns: str) -> None:
    """Print the head of a table in Markdown."""
    print_row(*columns)
    print_row(*["---"] * len(columns))


def print_row(*cells: str) -> None:
    """Print a row of a table in Markdown."""
    print("|", " | ".join(cells), "|", flush=True)

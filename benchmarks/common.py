"""What the benchmarks share: data that needs no download, and federations of real processes."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Iterable, Mapping, Sequence

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))
from federation.data import partition_file
from federation.data.hub import SOURCES
from federation.data.partition_file import Examples

import numpy as np
from processes import ROOT, Federation, Processes, federate

NUM_IMAGES = {"mnist": 2250, "cifar10": 1000}  # a client's; a tenth of them is for validation
TIMEOUT = 3600  # seconds; for a federation


def noise(dataset: str, count: int) -> Examples:
    """Return random images and labels: as good as real ones where only time and memory count."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, *SOURCES[dataset].image_shape), dtype=np.uint8)
    return Examples(images, random.integers(0, 10, size=count))


def write_partitions(dataset: str, num_clients: int, data_dir: Path) -> None:
    """Make a data folder with partitions of noise, where clients look for theirs."""
    examples = noise(dataset, NUM_IMAGES[dataset])
    for cid in range(num_clients):
        partition_file.write(data_dir / dataset / str(num_clients) / f"{cid}.npz", examples)


def run_federation(
    framework: str, dataset: str, data_dir: Path, num_clients: int = 1, rounds: int = 1, project: Path = ROOT
) -> Federation:
    """Run the real server and clients of `project` on partitions of `write_partitions`."""
    flags = ("--num_clients", num_clients, "--data_dir", data_dir, *(["--mnist"] if dataset == "mnist" else []))
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder), project) as processes:
        script = f"client_{framework}.py"
        return federate(processes, script, ("--rounds", rounds), flags, num_clients, timeout=TIMEOUT)


def peak_mb(federation: Federation) -> float:
    """Return the peak megabytes of the largest client, as the clients tell; CUDA's PyTorch takes more at its exit."""
    return max(float(row["peak_memory_mb"]) for row in federation.client_rows)


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows to a CSV file, which begins with the names of the columns."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, columns)
        if is_new:
            table.writeheader()
        table.writerows(rows)


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

"""What the benchmarks share: data that needs no download, and federations of real processes."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.partitions import SOURCES, Examples

import numpy as np

ROOT = Path(__file__).parent.parent
NUM_IMAGES = {"mnist": 2250, "cifar10": 1000}  # a client's; a tenth of them is for validation


def noise(dataset: str, count: int) -> Examples:
    """Return random images and labels: as good as real ones where only time and memory count."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, *SOURCES[dataset].image_shape), dtype=np.uint8)
    return Examples(images, random.integers(0, 10, size=count))


def write_partitions(dataset: str, num_clients: int, data_dir: Path) -> None:
    """Make a data folder with partitions of noise, where clients look for theirs."""
    folder = data_dir / dataset / str(num_clients)
    folder.mkdir(parents=True, exist_ok=True)
    examples = noise(dataset, NUM_IMAGES[dataset])
    for cid in range(num_clients):
        np.savez(folder / f"{cid}.npz", images=examples.images, labels=examples.labels)


def free_address() -> str:
    """Return an address on this machine that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Federation(NamedTuple):
    """What was measured while a federation ran."""

    start_seconds: float  # from the start of the first client until the server sees it
    round_seconds: list[float]
    fit_seconds: list[float]  # of all clients and rounds, from the second round on
    peak_mb: float  # of the largest client


def run_federation(
    framework: str, dataset: str, data_dir: Path, clients: int = 1, rounds: int = 1, client_flags: tuple[str, ...] = ()
) -> Federation:
    """Run the real server and clients on partitions of `write_partitions`."""
    address = free_address()
    flags = ["--num_clients", str(clients), "--data_dir", str(data_dir), "--server_address", address, *client_flags]
    if dataset == "mnist":
        flags.append("--mnist")
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [
                sys.executable, "server.py", "--rounds", str(rounds), "--min_num_clients", str(clients),
                "--server_address", address, "--results_dir", folder,
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert "clients connect" in server.stdout.readline()
        started = time.perf_counter()
        devices = [
            subprocess.Popen(
                [sys.executable, f"client_{framework}.py", "--cid", str(cid), *flags],
                cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for cid in range(clients)
        ]  # fmt: skip
        while " has joined, 1 now" not in server.stdout.readline():
            pass
        start_seconds = time.perf_counter() - started
        server.communicate(timeout=3600)
        assert server.returncode == 0 and all(device.wait(60) == 0 for device in devices)
        rows = [read_csv(Path(folder, f"{name}.csv")) for name in ("rounds", "clients")]
    return Federation(
        start_seconds,
        [float(row["seconds"]) for row in rows[0]],
        [float(row["seconds"]) for row in rows[1] if row["round"] != "1"],
        max(float(row["peak_memory_mb"]) for row in rows[1]),  # ours; the exit of PyTorch's CUDA build adds 130 MB
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open() as file:
        return list(csv.DictReader(file))


def versions() -> str:
    """Return a line about this machine and the versions of what is measured."""
    from importlib.metadata import PackageNotFoundError, version

    found = [f"{os.cpu_count()} cores", f"Python {sys.version.split()[0]}"]
    for name in ("flwr", "torch", "tensorflow", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) + time.strftime(", %Y-%m-%d")


def print_row(*cells: str) -> None:
    """Print a row of a table in Markdown."""
    print("|", " | ".join(cells), "|", flush=True)

"""What the benchmarks share: data that needs no download, and federations of real processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Iterator

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))
from federation.flags import ArgumentParser
from federation.results.tables import read_table

import numpy as np
from flwr.server.strategy import FedAvg
from processes import ROOT, Federation, Process, Processes, federate

IMAGE_SHAPE = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
NUM_IMAGES = {"mnist": 2250, "cifar10": 1000}  # a client's; a tenth of them is for validation
TIMEOUT = 3600  # seconds; for a federation
LOOK_EVERY = 0.02  # seconds


def parser_of(doc: str, **defaults: Any) -> ArgumentParser:
    """Return a parser with flags that have these defaults and their types.

    A list takes several values, a tuple several of its own; a flag whose default is a type has to be given.
    """
    parser = ArgumentParser(doc)
    for name, default in defaults.items():
        how: dict[str, Any] = {"type": type(default), "default": default}
        if isinstance(default, (list, tuple)):
            how.update(type=type(default[0]), nargs="+", choices=default if isinstance(default, tuple) else None)
        elif isinstance(default, type):
            how = {"type": default, "required": True}
        parser.add_argument(f"--{name}", **how, help="(default: %(default)s)")
    return parser


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
    framework: str, dataset: str, data_dir: Path, clients: int = 1, rounds: int = 1, *more: object, test: bool = False
) -> Federation:
    """Run the real server and clients, with `more` flags for these; with `test`, the server tests the global model."""
    data = "--data_dir", data_dir.resolve(), *(["--mnist"] if dataset == "mnist" else [])
    of_server = "--rounds", rounds, *(["--evaluate_with", framework, *data] if test else [])
    flags = "--num_clients", clients, *more, *data
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        return federate(processes, f"client_{framework}.py", of_server, flags, clients, timeout=TIMEOUT)


def peak_mb(federation: Federation) -> float:
    """Return the peak megabytes of the largest client, as the clients tell; CUDA's PyTorch takes more at its exit."""
    return max(float(row["peak_memory_mb"]) for row in federation.client_rows)


def rounds_of(server: Process, results: Path, seconds: float = TIMEOUT) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield the seconds since the first round began and each row of rounds.csv; ends with the server or `seconds`."""
    table, count, started, is_over = results / "rounds.csv", 0, time.monotonic(), False
    while not is_over:
        is_over = server.popen.poll() is not None or time.monotonic() > started + (seconds if count else TIMEOUT)
        for row in (read_table(table) if table.exists() else [])[count:]:
            if not count:
                started = time.monotonic() - float(row["seconds"])
            count += 1
            yield time.monotonic() - started, row
        time.sleep(LOOK_EVERY)


def imports(statement: str) -> tuple[float, float]:
    """Return the seconds from a process's start until it has imported something, and its peak megabytes."""
    code = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)"
    started = time.perf_counter()
    command = sys.executable, "-c", f"{statement}\n{code}"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        peak = float(process.stdout.readline())
        return time.perf_counter() - started, peak


def training(framework: str, dataset: str, data_dir: Path, repeat: int) -> dict[str, float]:
    """Return what baseline.py measures, in a process of its own, on the partition for one client: seconds."""
    command = [sys.executable, "benchmarks/baseline.py", framework, dataset, data_dir.resolve(), f"{repeat}"]
    return json.loads(subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL).splitlines()[-1])


class TimedFedAvg(FedAvg):
    """Flower's FedAvg over `count` clients; it writes a table with some of the columns of our rounds.csv."""

    def __init__(self, count: int, table: Path) -> None:
        super().__init__(min_fit_clients=count, min_evaluate_clients=count, min_available_clients=count)
        self.table = table
        table.write_text("round,clients,seconds\n")

    def configure_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Start the clock."""
        self.started = time.monotonic()
        return super().configure_fit(*args, **kwargs)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        """Stop the clock; write a row."""
        with self.table.open("a") as file:
            file.write(f"{server_round},{len(results)},{time.monotonic() - self.started}\n")
        return super().aggregate_evaluate(server_round, results, failures)


def versions() -> str:
    """Return a line about this machine and the versions of what is measured."""
    found = [f"{os.cpu_count()} cores", f"Python {sys.version.split()[0]}"]
    for name in ("flwr", "torch", "tensorflow", "onnxruntime", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found) + time.strftime(", %Y-%m-%d")


def print_head(*columns: str, about: str = "") -> None:
    """Print the head of a table in Markdown, and before it the versions or what it is `about`."""
    print(about or versions(), end="\n\n")
    print_row(*columns)
    print_row(*["---"] * len(columns))


def print_row(*cells: str) -> None:
    """Print a row of a table in Markdown."""
    print("|", " | ".join(cells), "|", flush=True)

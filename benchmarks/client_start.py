"""How long a client takes from its start to its connection, and how much memory it takes, beside its imports alone.

    python benchmarks/client_start.py [--repeat 5]

For each framework on MNIST, with a partition that is prepared: the server and the client are the real scripts, one
round of three epochs. "imports" is a process that imports the framework and flwr.client and ends. Both are measured in
turn, so that a busy machine slows both; medians are shown. Peak memory is the resident set's, from the kernel.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULE = {"pytorch": "torch", "tf": "tensorflow"}


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


def client(framework: str, data_dir: Path, results: Path) -> tuple[float, float]:
    """Return the seconds from the client's start until the server sees it, and the client's peak megabytes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [
            sys.executable, "server.py", "--rounds", "1", "--min_num_clients", "1", "--server_address", address,
            "--results_dir", str(results),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "clients connect" in server.stdout.readline()
    started = time.perf_counter()
    device = subprocess.Popen(
        [
            sys.executable, f"client_{framework}.py", "--cid", "0", "--mnist", "--num_clients", "2",
            "--data_dir", str(data_dir), "--server_address", address,
        ],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while " has joined, 1 now" not in server.stdout.readline():
        pass
    seconds = time.perf_counter() - started
    assert server.wait(300) == 0 and device.wait(60) == 0
    with (results / "clients.csv").open() as file:
        return seconds, float(next(csv.DictReader(file))["peak_memory_mb"])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each kind (default: %(default)s)")
    args = parser.parse_args()
    print("| client, MNIST | start to connected | imports | ratio | peak memory over imports |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder, "data")
        shutil.copytree(ROOT / "sample_data" / "mnist", data_dir / "mnist")
        prepare = [sys.executable, "-m", "federation.partitions", "--mnist", "--cid", "0", "--num_clients", "2"]
        subprocess.run([*prepare, "--data_dir", str(data_dir)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for framework in MODULE:
            imports(framework)  # the first one reads the files from the disk
            pairs = [
                (imports(framework), client(framework, data_dir, Path(folder, f"{framework}{i}")))
                for i in range(args.repeat)
            ]
            floor, floor_mb = (statistics.median(pair[0][i] for pair in pairs) for i in (0, 1))
            connected, peak_mb = (statistics.median(pair[1][i] for pair in pairs) for i in (0, 1))
            print(
                f"| client_{framework}.py | {connected:.2f} s | {floor:.2f} s | {connected / floor:.2f} "
                f"| {peak_mb - floor_mb:.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What flower_app.py takes on Flower's engines, beside the same clients as Flower's documentation has them.

    python benchmarks/engines.py
    python benchmarks/engines.py --clients 200 --images 270 --rounds 2

A simulation on this machine, of clients with that many MNIST images (noise, which takes as long): seconds of each
round, and the peak memory of all processes together, shared pages counted once (PSS). Both run in turn; "fits alone"
is the same fits and evaluations in one process, one after the other, divided by the number of cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from federation import partition_file
from federation.tables import read_table

import psutil
from common import noise, print_head, print_row, versions
from processes import ROOT

SAMPLE_EVERY = 1  # seconds


def memory_mb(process: psutil.Process) -> float:
    """Return the megabytes of a process and all of its descendants, shared pages counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total / 1e6


def run(*command: object, **environment: object) -> tuple[str, float]:
    """Run a script; return its output and the peak megabytes of all its processes."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **{name: str(value) for name, value in environment.items()}}
    with tempfile.TemporaryFile("w+") as log:
        popen = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        peak, process = 0.0, psutil.Process(popen.pid)
        while popen.poll() is None:
            try:
                peak = max(peak, memory_mb(process))
            except psutil.NoSuchProcess:
                break
            time.sleep(SAMPLE_EVERY)
        log.seek(0)
        output = log.read()
    if popen.wait() != 0:
        raise RuntimeError(output)
    return output, peak


def alone(num_clients: int, data_dir: Path) -> float:
    """Return the seconds of all clients' fits and evaluations in one process on one core."""
    code = (
        "import sys, time; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from client_pytorch import FlowerClient; from federation.partitions import Partition, load_partition\n"
        f"sets = load_partition(Partition('mnist', 0, {num_clients}, Path({str(data_dir)!r})))\n"
        "client = FlowerClient('mnist', *sets); model = [array.copy() for array in client.get_parameters({})]\n"
        "client.fit(model, {})\n"
        "started = time.perf_counter()\n"
        "for _ in range(20): client.fit(model, {}); client.evaluate(model, {})\n"
        "print((time.perf_counter() - started) / 20)"
    )
    return num_clients * float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))


def simulation(num_clients: int, images: int, rounds: int) -> None:
    """Print the rows about a simulation."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir, results = Path(folder, "data"), Path(folder, "results")
        examples = noise("mnist", images)
        for cid in range(num_clients):
            partition_file.write(data_dir / "mnist" / str(num_clients) / f"{cid}.npz", examples, cut_from=[])
        ideal = alone(num_clients, data_dir) / (os.cpu_count() or 1)
        output, plain_mb = run("benchmarks/plain_app.py", NUM_CLIENTS=num_clients, DATA_DIR=data_dir, ROUNDS=rounds)
        plain = [float(seconds) for seconds in re.findall(rf"{num_clients} tests, ([\d.]+) s", output)]
        flags = "--num_clients", num_clients, "--mnist", "--data_dir", data_dir, "--rounds", rounds
        _, ours_mb = run("flower_app.py", *flags, "--results_dir", results)
        rows = read_table(results / "rounds.csv")
        assert [int(row["clients"]) for row in rows] == [num_clients] * rounds
        for number, (row, before) in enumerate(zip(rows, plain), start=1):
            now = float(row["seconds"])
            cells = f"{before:.0f} s", f"{now:.0f} s", f"{now / before:.2f}", f"{ideal:.0f} s"
            print_row(f"simulation, {num_clients} x {images} images: round {number}", *cells)
        print_row("peak memory", f"{plain_mb:.0f} MB", f"{ours_mb:.0f} MB", f"{ours_mb / plain_mb:.2f}", "")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--images", type=int, default=54, help="of each client")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    print(versions())
    print_head("what", "plain Flower", "flower_app.py", "ratio", "fits alone")
    simulation(args.clients, args.images, args.rounds)


if __name__ == "__main__":
    main()

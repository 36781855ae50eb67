"""What flower_app.py takes on Flower's engines, beside the same clients as Flower's documentation has them.

    python benchmarks/engines.py simulation
    python benchmarks/engines.py simulation --clients 200 --images 270
    python benchmarks/engines.py deployment

A simulation on this machine, of clients with that many MNIST images (noise, which takes as long): seconds of each
round, and the peak memory of all processes together, shared pages counted once (PSS). Both run in turn; "fits alone"
is the same fits and evaluations in one process, one after the other, divided by the number of cores.

A deployment on this machine, with two SuperNodes of 2,250 images each: a round (a fit and an evaluation of each), and
the memory of a node with all its processes, of which Flower starts one for each message.
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
from typing import Iterable

import psutil
from common import print_head, print_row, read_rows, versions, write_partitions
from deployment import Fleet
from processes import ROOT

SAMPLE_EVERY = 5  # seconds; it takes the time of what is measured


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the megabytes of processes, shared pages counted once."""
    total = 0
    for each in processes:
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
                peak = max(peak, memory_mb([process, *process.children(recursive=True)]))
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
        "from client_pytorch import FlowerClient; from federation.data.partitions import Partitioning, load_partition\n"
        f"sets = load_partition(Partitioning('mnist', Path({str(data_dir)!r}), {num_clients}), 0)\n"
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
        write_partitions("mnist", num_clients, data_dir, images)
        ideal = alone(num_clients, data_dir) / (os.cpu_count() or 1)
        output, plain_mb = run("benchmarks/plain_app.py", NUM_CLIENTS=num_clients, DATA_DIR=data_dir, ROUNDS=rounds)
        plain = [float(seconds) for seconds in re.findall(rf"{num_clients} tests, ([\d.]+) s", output)]
        flags = "--num_clients", num_clients, "--mnist", "--data_dir", data_dir, "--rounds", rounds
        _, ours_mb = run("flower_app.py", *flags, "--results_dir", results)
        rows = read_rows(results / "rounds.csv")
        assert [int(row["clients"]) for row in rows] == [num_clients] * rounds
        for number, (row, before) in enumerate(zip(rows, plain), start=1):
            now = float(row["seconds"])
            cells = f"{before:.0f} s", f"{now:.0f} s", f"{now / before:.2f}", f"{ideal:.0f} s"
            print_row(f"simulation, {num_clients} x {images} images: round {number}", *cells)
        print_row("peak memory", f"{plain_mb:.0f} MB", f"{ours_mb:.0f} MB", f"{ours_mb / plain_mb:.2f}", "")


def deployment(rounds: int) -> None:
    """Print the rows about a deployment."""
    with tempfile.TemporaryDirectory() as folder:
        write_partitions("mnist", 2, Path(folder, "data"))
        with Fleet(Path(folder), Path(folder, "data")) as fleet:
            fleet.start_superlink()
            nodes = fleet.start_nodes(0, 1)
            rest, peak = memory_mb(fleet.members(nodes[0])), 0.0
            run = fleet.run(f"--rounds {rounds} --min_num_clients 2 --mnist --results_dir {folder}/results")
            while run.popen.poll() is None:
                peak = max(peak, memory_mb(fleet.members(nodes[0])))
                time.sleep(1)
            rows = read_rows(Path(folder, "results/rounds.csv"))
            assert [row["clients"] for row in rows] == ["2"] * rounds, fleet.logs()
    for row in rows:
        print_row(f"deployment: round {row['round']}", f"{float(row['seconds']):.1f} s")
    print_row("memory of a node at rest", f"{rest:.0f} MB")
    print_row("memory of a node at the peak", f"{peak:.0f} MB")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=("simulation", "deployment"))
    parser.add_argument("--clients", type=int, default=1000, help="of the simulation")
    parser.add_argument("--images", type=int, default=54, help="of each of these")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    print(versions())
    if args.engine == "simulation":
        print_head("what", "plain Flower", "flower_app.py", "ratio", "fits alone")
        simulation(args.clients, args.images, args.rounds)
    else:
        print_head("what", "a process for each message")
        deployment(args.rounds)


if __name__ == "__main__":
    main()

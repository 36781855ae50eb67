"""What flower_app.py takes on Flower's engines, beside the same clients as Flower's documentation has them.

    python benchmarks/engines.py simulation
    python benchmarks/engines.py simulation --clients 200 --images 270
    python benchmarks/engines.py deployment

A simulation on this machine, of `--clients` with `--images` of MNIST each (noise, which takes as long): seconds of each
round, and the peak memory of all processes together, shared pages counted once (PSS). Both run in turn; "fits alone"
is the same fits and evaluations in one process, one after the other, divided by the number of cores.

A deployment on this machine, with two SuperNodes of 2,250 images each: a round (a fit and an evaluation of each), and
the memory of a node with all its processes, of which Flower starts one for each message.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Partitioning, load_partition

import psutil
from common import TimedFedAvg, parser_of, print_head, print_row, read_table, training, write_partitions
from deployment import Fleet
from flwr.client import Client
from flwr.clientapp import ClientApp
from flwr.common import Context
from flwr.server import ServerAppComponents, ServerConfig
from flwr.serverapp import ServerApp
from processes import Process, Processes

SAMPLE_EVERY = 5  # seconds; it takes the time of what is measured


def peak_mb(process: Process, members: Callable[[], list[psutil.Process]], every: float) -> float:
    """Wait for the end of a process; return the peak megabytes of all `members`, shared pages counted once."""
    peak = 0.0
    while process.popen.poll() is None:
        peak = max(peak, memory_mb(members()))
        time.sleep(every)
    assert process.exit_code() == 0, process.output
    return peak


def memory_mb(processes: list[psutil.Process]) -> float:
    """Return the megabytes of processes, shared pages counted once."""
    total = 0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended in the meantime
            total += each.memory_full_info().pss
    return total / 1e6


def simulation(num_clients: int, images: int, rounds: int) -> None:
    """Print the rows about a simulation."""
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        data_dir, results = Path(folder, "data"), Path(folder, "results")
        for count in (1, num_clients):
            write_partitions("mnist", count, data_dir, images)
        alone = training("pytorch", "mnist", data_dir, repeat=20)
        ideal = num_clients * (alone["fit"] + alone["evaluate"]) / (os.cpu_count() or 1)

        def run(script: str, *flags: object, **environment: object) -> float:
            process = processes.start(script, *flags, env={name: f"{value}" for name, value in environment.items()})
            itself = psutil.Process(process.popen.pid)
            return peak_mb(process, lambda: [itself, *itself.children(recursive=True)], SAMPLE_EVERY)

        told = {"NUM_CLIENTS": num_clients, "DATA_DIR": data_dir, "ROUNDS": rounds, "TABLE": Path(folder, "rounds.csv")}
        plain_mb = run("benchmarks/engines.py", "plain", **told)
        flags = "--num_clients", num_clients, "--mnist", "--data_dir", data_dir, "--rounds", rounds
        ours_mb = run("flower_app.py", *flags, "--results_dir", results)
        plain, ours = (read_table(table) for table in (told["TABLE"], results / "rounds.csv"))
        assert [int(row["clients"]) for row in (*plain, *ours)] == 2 * rounds * [num_clients]
        for number, (before, now) in enumerate(zip(plain, ours), start=1):
            seconds = float(before["seconds"]), float(now["seconds"])
            cells = *(f"{each:.0f} s" for each in seconds), f"{seconds[1] / seconds[0]:.2f}", f"{ideal:.0f} s"
            print_row(f"simulation, {num_clients} x {images} images: round {number}", *cells)
        print_row("peak memory", f"{plain_mb:.0f} MB", f"{ours_mb:.0f} MB", f"{ours_mb / plain_mb:.2f}", "")


def make_client(context: Context) -> Client:
    """Return plain Flower's client, with its partition and a model."""
    from client_pytorch import FlowerClient

    node = context.node_config
    partitioning = Partitioning("mnist", Path(os.environ["DATA_DIR"]), int(node["num-partitions"]))
    return FlowerClient("mnist", *load_partition(partitioning, int(node["partition-id"]))).to_client()


def make_server(context: Context) -> ServerAppComponents:
    """Return plain Flower's FedAvg over all clients."""
    strategy = TimedFedAvg(int(os.environ["NUM_CLIENTS"]), Path(os.environ["TABLE"]))
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=int(os.environ["ROUNDS"])))


def plain() -> None:
    """Simulate as in Flower's documentation."""
    from flwr.simulation import run_simulation

    apps = ServerApp(server_fn=make_server), ClientApp(client_fn=make_client)
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(*apps, int(os.environ["NUM_CLIENTS"]), backend_config=backend)


def deployment(rounds: int) -> None:
    """Print the rows about a deployment."""
    with tempfile.TemporaryDirectory() as folder:
        write_partitions("mnist", 2, Path(folder, "data"))
        with Fleet(Path(folder), Path(folder, "data")) as fleet:
            fleet.start_superlink()
            nodes = fleet.start_nodes(0, 1)
            rest = memory_mb(fleet.members(nodes[0]))
            run = fleet.run(f"--rounds {rounds} --min_num_clients 2 --mnist --results_dir {folder}/results")
            peak = peak_mb(run, lambda: fleet.members(nodes[0]), every=1)
            rows = read_table(Path(folder, "results/rounds.csv"))
            assert [row["clients"] for row in rows] == ["2"] * rounds, fleet.logs()
    for row in rows:
        print_row(f"deployment: round {row['round']}", f"{float(row['seconds']):.1f} s")
    print_row("memory of a node at rest", f"{rest:.0f} MB")
    print_row("memory of a node at the peak", f"{peak:.0f} MB")


def main() -> None:
    """Measure and print the table."""
    parser = parser_of(__doc__, clients=1000, images=54, rounds=2)
    parser.add_argument("engine", choices=("simulation", "deployment", "plain"), help="plain: what a simulation starts")
    args = parser.parse_args()
    if args.engine == "plain":
        plain()
    elif args.engine == "simulation":
        print_head("what", "plain Flower", "flower_app.py", "ratio", "fits alone")
        simulation(args.clients, args.images, args.rounds)
    else:
        print_head("what", "a process for each message")
        deployment(args.rounds)


if __name__ == "__main__":
    main()

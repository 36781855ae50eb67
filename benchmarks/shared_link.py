"""Clients behind one Wi-Fi: seconds, megabytes and accuracy, with the model in full and in half precision.

    sudo .venv/bin/python benchmarks/shared_link.py
    sudo .venv/bin/python benchmarks/shared_link.py --mbit 0 --data_dir data --seed 2

A real server and PyTorch clients. The server is in one network namespace, all clients in another; between them is an
access point, a bridge that lets `--mbit` through in each direction. The directions do not disturb each other, as they
would on the air. Each has a queue as in a home router: first in, first out, 100 ms. TCP is CUBIC, as on most Linux.

Bytes are what came through the access point, headers and repeated packets included, from one row of rounds.csv to the
next; without a limit, `--mbit 0`, some of the next round's are in them. The first round, before which the clients have
no model, stands for itself; the other columns are from at least one more: medians of seconds, means of bytes.
"training" is the slowest client's; the clients share this machine's cores. The accuracy is that after the last round,
on the test split; without `--data_dir`, images are noise. Needs root, Linux, and the commands ip and tc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Iterator

import numpy as np
from common import parser_of, print_head, print_row, read_table, rounds_of, write_partitions
from processes import Process, Processes

MODELS = "mnist", "cifar10"
MODES = "full", "half"
ROLES = "server", "boards"
NETWORK = "10.77.1"
ADDRESS = f"{NETWORK}.1:8080"  # the server's


def call(*command: object) -> str:
    """Run a command that takes no time; return its output."""
    return subprocess.run([*map(str, command)], check=True, timeout=10, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def shared_link(mbit: float) -> Iterator[dict[str, str]]:
    """Connect the server's namespace and the boards' by an access point; yield the names of all three."""
    names = {role: f"fl-{role}-{os.getpid()}" for role in (*ROLES, "access")}
    access = names["access"]
    try:
        for name in names.values():
            call("ip", "netns", "add", name)
        call("ip", "-n", access, "link", "add", "bridge", "type", "bridge")
        call("ip", "-n", access, "link", "set", "bridge", "up")
        for number, role in enumerate(ROLES, 1):
            name = names[role]
            peer = "peer", "name", role, "netns", access
            call("ip", "link", "add", "name", "eth0", "netns", name, "type", "veth", *peer)
            call("ip", "-n", access, "link", "set", role, "master", "bridge", "up")
            call("ip", "-n", name, "link", "set", "eth0", "gso_max_segs", 1, "up")  # packets as long as on the air
            call("ip", "-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            call("ip", "-n", name, "route", "change", f"{NETWORK}.0/24", "dev", "eth0", "congctl", "cubic")
            if mbit:
                shape = "tbf", "rate", f"{mbit}mbit", "burst", "16kb", "latency", "100ms"
                call("tc", "-n", access, "qdisc", "add", "dev", role, "root", *shape)
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10)


def passed(access: str) -> tuple[float, float]:
    """Return the megabytes that have come through the access point to the boards and to the server."""
    links = {link["ifname"]: link for link in json.loads(call("ip", "-n", access, "-s", "-j", "link"))}
    down, up = (links[role]["stats64"]["tx"]["bytes"] / 1e6 for role in ("boards", "server"))
    return down, up


def run(model: str, mode: str, args: argparse.Namespace) -> None:
    """Run a federation; print a row about it."""
    with ExitStack() as stack:
        names = stack.enter_context(shared_link(args.mbit))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = stack.enter_context(Processes(folder))
        data = "--data_dir", args.data_dir or folder / "data", *(["--mnist"] if model == "mnist" else [])
        cut = "--num_clients", args.clients, *data
        if args.data_dir is None:
            write_partitions(model, args.clients, folder / "data")
        else:  # at once, as the clients would only do it one after the other
            cutting = processes.start("-m", "federation.data", "--test", *cut, "--cid", *range(args.clients))
            assert cutting.exit_code() == 0, cutting.output

        def start(role: str, *command: object) -> Process:
            inside = "netns", "exec", names[role], sys.executable
            return processes.start(*inside, *command, "--server_address", ADDRESS, python="ip")

        client = "client_pytorch.py", *cut, "--threads", 1, "--cid"
        clients = [start("boards", *client, cid) for cid in range(args.clients)]
        for process in clients:
            process.wait_for("waiting for it")
        results = folder / "results"
        server = start(
            "server", "server.py", "--results_dir", results, "--min_num_clients", args.clients,
            *("--rounds", args.rounds, "--epochs", 1, "--seed", args.seed),
            *(["--evaluate_with", "pytorch", *data] if args.data_dir else []),
            *(["--half_precision"] if mode == "half" else []),
        )  # fmt: skip
        ends = [passed(names["access"]) for _ in rounds_of(server, results)]
        for process in (server, *clients):
            assert process.exit_code() == 0, process.output
        rounds, client_rows = read_table(results / "rounds.csv"), read_table(results / "clients.csv")
        with np.load(results / "model.npz") as arrays:
            megabytes = sum(4 * arrays[name].size for name in arrays.files) / 1e6  # as float32
    assert [(row["clients"], row["failures"]) for row in rounds] == [(f"{args.clients}", "0")] * args.rounds
    down, up = (
        mean(after - before for before, after in zip(counts, counts[1:])) / megabytes / args.clients
        for counts in zip(*ends)
    )
    training = median(
        max(float(row["seconds"]) for row in client_rows if row["round"] == each["round"]) for each in rounds[1:]
    )
    print_row(
        *(model, mode, f"{median(float(row['seconds']) for row in rounds[1:]):.2f} s", f"{rounds[0]['seconds']} s"),
        *(f"{down:.2f}", f"{up:.2f}", f"{down + up:.2f}", f"{training:.2f} s"),
        rounds[-1]["central_accuracy" if args.data_dir else "accuracy"],
    )


def main() -> None:
    """Measure and print the table."""
    parser = parser_of(__doc__, models=MODELS, modes=MODES, seed=1, clients=10, mbit=20.0, rounds=5)
    parser.add_argument("--data_dir", type=Path, help="with real images (default: noise)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make network namespaces")
    args.data_dir = args.data_dir and args.data_dir.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no process and no namespace stays behind
    traffic = "down a client / model", "up / model", "sum / model"
    print_head("model", "mode", "a round", "first round", *traffic, "training", "accuracy")
    for model, mode in itertools.product(args.models, args.modes):
        run(model, mode, args)


if __name__ == "__main__":
    main()

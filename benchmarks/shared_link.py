"""Clients behind one Wi-Fi: seconds, megabytes and accuracy, with the model in full and in half precision.

    sudo .venv/bin/python benchmarks/shared_link.py
    sudo .venv/bin/python benchmarks/shared_link.py --mbit 0 --data_dir data --seed 2

A real server and PyTorch clients. The server is in one network namespace, all clients in another; between them is an
access point, a bridge that lets `--mbit` through in each direction. The directions do not disturb each other, as they
would on the air. Each has a queue as in a home router: first in, first out, 100 ms; there is no other delay. TCP is
CUBIC, as on most Linux.

Bytes are what came through the access point, headers and repeated packets included, from one row of rounds.csv to the
next; without a limit, `--mbit 0`, some of the next round's are in them. The first round, before which the clients have
no model, stands for itself; the other columns are from later ones: medians of seconds, means of bytes. "training" is
the slowest client's, longer than on boards: the clients share this machine's cores. The accuracy is that after the last
round, on the test split; without `--data_dir`, images are noise, and it means nothing. Needs root, Linux, and the
commands ip and tc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Iterator

import numpy as np
from common import TIMEOUT, print_head, print_row, read_rows, versions, write_partitions
from processes import Process, Processes

MODELS = "mnist", "cifar10"
MODES = "full", "half"
ROLES = "server", "boards"
NETWORK = "10.77.1"
ADDRESS = f"{NETWORK}.1:8080"  # the server's
LOOK_EVERY = 0.02  # seconds


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
        ends = watch(server, results, names["access"])
        for process in (server, *clients):
            assert process.exit_code() == 0, process.output
        rounds, client_rows = read_rows(results / "rounds.csv"), read_rows(results / "clients.csv")
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


def watch(server: Process, results: Path, access: str) -> list[tuple[float, float]]:
    """Wait for the server's end; return what had come through the access point at the end of each round."""
    ends: list[tuple[float, float]] = []
    last_look, waited_since = False, time.monotonic()
    while not last_look:
        last_look = server.popen.poll() is not None  # at its last row
        for _ in read_rows(results / "rounds.csv")[len(ends) :]:
            ends.append(passed(access))
            waited_since = time.monotonic()
        assert time.monotonic() < waited_since + TIMEOUT, server.output
        time.sleep(LOOK_EVERY)
    return ends


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="with real images (default: noise)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--mbit", type=float, default=20.0, help="a second; 0: no limit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="at least 2 (default: %(default)s)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make network namespaces")
    args.data_dir = args.data_dir and args.data_dir.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no process and no namespace stays behind
    print(versions())
    print_head(
        *("model", "mode", "a round", "first round", "down a client / model", "up / model", "sum / model"),
        *("training", "accuracy"),
    )
    for model, mode in itertools.product(args.models, args.modes):
        run(model, mode, args)


if __name__ == "__main__":
    main()

"""Clients behind one Wi-Fi: seconds, megabytes and accuracy, beside a version before and with half precision.

    sudo .venv/bin/python benchmarks/shared_link.py --points points.csv --before ../before
    sudo .venv/bin/python benchmarks/shared_link.py --points points.csv --modes full half --mbit 0 --data_dir data

Real servers and clients. The server is in one network namespace, all clients in another; between them is an access
point, a bridge that lets `--mbit` through in each direction. The directions do not disturb each other, as they would on
the air. Each has a queue as in a home router: first in, first out, 100 ms; there is no other delay. TCP is CUBIC, as on
most Linux. A mode is "before", the project in the folder `--before`; "full", this one; or "half", this one with
`--half_precision`. Models are those of client_pytorch.py, and a ResNet-18 on CIFAR-10.

Bytes are what came through the access point, headers and repeated packets included, from one row of rounds.csv to the
next; without a limit, `--mbit 0`, some of the next round's are in them. "told" are those of clients.csv, if it has
them. The first round, before which the clients have no model, stands for itself; the other columns are from later ones:
medians of seconds, means of bytes. "training" is the slowest client's, longer than on boards: the clients share this
machine's cores. With real images, more `--num_partitions` make it shorter, and the server's own test counts too.

`--points` is a CSV file with the rounds of all runs. A run that is in it is not done again; all that have the same
settings are in the tables. Without `--data_dir`, images are noise, and there is no table of accuracies: the server's on
the test split, for ResNet-18 the clients' own. Needs root, Linux, and the commands ip and tc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Dict, Iterator, List

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.flags import path
from federation.results.tables import number, read_table

import numpy as np
from common import TIMEOUT, append_rows, print_head, print_row, versions, write_partitions
from processes import ROOT, Process, Processes

MODELS = "mnist", "cifar10", "resnet18"
MODES = "before", "full", "half"
ROLES = "server", "boards"
NETWORK = "10.77.1"
ADDRESS = f"{NETWORK}.1:8080"  # the server's
SETTINGS = "clients", "num_partitions", "mbit", "rounds", "epochs", "images"
COLUMNS = *SETTINGS, "model", "mode", "seed", "round", "seconds", "training", "accuracy", "down", "up", "told", "size"
LOOK_EVERY = 0.02  # seconds
RESNET18_CLIENT = """
import client_pytorch
client_pytorch.mobilenet = lambda: client_pytorch.torchvision_models().resnet18(num_classes=10)
client_pytorch.main()
"""

Rows = List[Dict[str, str]]  # by COLUMNS, one for each round; down, up, told and size are megabytes


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


def run(model: str, mode: str, seed: str, args: argparse.Namespace) -> Rows:
    """Run a federation; return a row for each round."""
    dataset = "mnist" if model == "mnist" else "cifar10"
    mnist = ["--mnist"] if model == "mnist" else []
    with ExitStack() as stack:
        names = stack.enter_context(shared_link(args.mbit))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = stack.enter_context(Processes(folder, args.before if mode == "before" else ROOT))
        data_dir = args.data_dir or folder / "data"
        cut = "--num_clients", args.num_partitions, "--data_dir", data_dir, *mnist
        if args.data_dir is None:
            write_partitions(dataset, args.num_partitions, data_dir)
        else:  # at once, as the clients would only do it one after the other
            cutting = processes.start("-m", "federation.data", "--test", *cut, "--cid", *range(args.clients))
            assert cutting.exit_code() == 0, cutting.output

        def start(role: str, *command: object) -> Process:
            inside = "netns", "exec", names[role], sys.executable
            return processes.start(*inside, *command, "--server_address", ADDRESS, python="ip")

        client = ["-c", RESNET18_CLIENT] if model == "resnet18" else ["client_pytorch.py"]
        clients = [start("boards", *client, "--cid", cid, *cut, "--threads", 1) for cid in range(args.clients)]
        for process in clients:
            process.wait_for("waiting for it")
        results = folder / "results"
        tests_itself = args.data_dir is not None and model != "resnet18"
        server = start(
            "server", "server.py", "--results_dir", results, "--min_num_clients", args.clients,
            *("--rounds", args.rounds, "--epochs", args.epochs, "--seed", seed),
            *(["--evaluate_with", "pytorch", "--data_dir", data_dir, *mnist] if tests_itself else []),
            *(["--half_precision"] if mode == "half" else []),
        )  # fmt: skip
        ends = watch(server, results, names["access"])
        assert server.exit_code() == 0, server.output
        for process in clients:
            assert process.exit_code() == 0, process.output
        rounds, client_rows = read_table(results / "rounds.csv"), read_table(results / "clients.csv")
        with np.load(results / "model.npz") as arrays:
            size = sum(4 * arrays[name].size for name in arrays.files) / 1e6  # as float32
    assert [(row["clients"], row["failures"]) for row in rounds] == [(f"{args.clients}", "0")] * args.rounds
    rows = []
    for row, before, after in zip(rounds, [(0.0, 0.0), *ends], ends):
        of_clients = [each for each in client_rows if each["round"] == row["round"]]
        told = sum(number(each.get(name, "")) for each in of_clients for name in ("sent_mb", "received_mb"))
        figures = {
            "seconds": row["seconds"],
            "training": max(float(each["seconds"]) for each in of_clients),
            "accuracy": row["central_accuracy" if tests_itself else "accuracy"],
            **{"down": after[0] - before[0], "up": after[1] - before[1], "told": told, "size": size},
        }
        rows.append({"round": row["round"], **{name: f"{float(figure):.6g}" for name, figure in figures.items()}})
    return rows


def watch(server: Process, results: Path, access: str) -> list[tuple[float, float]]:
    """Wait for the server's end; return what had come through the access point at the end of each round."""
    ends: list[tuple[float, float]] = []
    last_look, waited_since = False, time.monotonic()
    while not last_look:
        last_look = server.popen.poll() is not None  # at its last row
        for _ in read_table(results / "rounds.csv")[len(ends) :]:
            ends.append(passed(access))
            waited_since = time.monotonic()
        assert time.monotonic() < waited_since + TIMEOUT, server.output
        time.sleep(LOOK_EVERY)
    return ends


def add_run(key: dict[str, str], settings: dict[str, str], args: argparse.Namespace) -> None:
    """Do a run and add its rounds to the file, unless they are there; print a line."""
    if any({**settings, **key}.items() <= row.items() for row in read_table(args.points)):
        return
    rows = run(**key, args=args)
    append_rows(args.points, COLUMNS, ({**settings, **key, **row} for row in rows))
    print(f"{', '.join(key.values())}: rounds of {', '.join(row['seconds'] for row in rows)} s", flush=True)


def column(rows: Rows, name: str) -> list[float]:
    """Return a column as numbers."""
    return [number(row[name]) for row in rows]


def print_costs(model: str, runs: dict[str, Rows], clients: int) -> None:
    """Print a row of seconds and bytes for each mode."""
    later = {mode: [row for row in rows if row["round"] != "1"] for mode, rows in runs.items()}
    seconds = {mode: median(column(rows, "seconds")) for mode, rows in later.items()}
    for mode, rows in later.items():
        ratio = seconds[mode] / seconds.get("before", math.nan)
        first = median(column([row for row in runs[mode] if row["round"] == "1"], "seconds"))
        training = median(column(rows, "training"))
        down, up, told = (mean(column(rows, name)) for name in ("down", "up", "told"))
        models = clients * mean(column(rows, "size"))
        cells = (
            *(f"{seconds[mode]:.2f} s", f"{ratio:.2f}", f"{first:.2f} s"),
            *(f"{megabytes / models:.2f}" for megabytes in (down, up, down + up)),
            *(f"{told / (down + up):.3f}", f"{training:.2f} s", f"{100 * training / seconds[mode]:.0f} %"),
        )
        print_row(model, mode, *(cell.replace("nan", "-") for cell in cells))


def print_accuracies(model: str, runs: dict[str, Rows], last: int) -> None:
    """Print a row of accuracies after the last round for each mode."""
    percent = {
        mode: {row["seed"]: 100 * float(row["accuracy"]) for row in rows if row["round"] == f"{last}"}
        for mode, rows in runs.items()
    }
    full = percent.get("full", {})
    for mode, by_seed in percent.items():
        found = by_seed.values()
        differences = [f"{by_seed[seed] - full[seed]:+.2f}" for seed in by_seed if seed in full]
        print_row(model, mode, f"{median(found):.2f} %", f"{max(found) - min(found):.2f}", ", ".join(differences))


def main() -> None:
    """Do the runs that are missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=path, required=True)
    parser.add_argument("--before", type=path, help="a folder with the project as it was before")
    parser.add_argument("--data_dir", type=path, help="with real images (default: noise)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--num_partitions", type=int, help="clients have the first ones (default: one for each)")
    parser.add_argument("--mbit", type=float, default=20.0, help="a second; 0: no limit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="at least 2 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of a round (default: %(default)s)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make network namespaces")
    if "before" in args.modes and args.before is None:
        parser.error("the mode before needs --before FOLDER")
    if args.rounds < 2:
        parser.error("--rounds must be at least 2: the first one stands for itself")
    args.num_partitions = args.num_partitions or args.clients
    args.data_dir = args.data_dir and args.data_dir.resolve()  # the scripts run in other folders
    args.images = "noise" if args.data_dir is None else "real"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no process and no namespace stays behind
    print(versions())
    settings = {name: f"{getattr(args, name)}" for name in SETTINGS}
    for seed, model, mode in itertools.product(args.seeds, args.models, args.modes):
        add_run({"model": model, "mode": mode, "seed": f"{seed}"}, settings, args)
    runs: dict[str, dict[str, Rows]] = {}
    for row in read_table(args.points):
        if settings.items() <= row.items():
            runs.setdefault(row["model"], {}).setdefault(row["mode"], []).append(row)
    print_head(
        *("model", "mode", "a round", "/ before", "first round", "down a client / model", "up / model", "sum / model"),
        *("told / on the link", "training", "of a round"),
    )
    for model, modes in runs.items():
        print_costs(model, modes, args.clients)
    if args.images == "real":
        print()
        print_head("model", "mode", "accuracy, median", "max - min, points", "minus full, by seed")
        for model, modes in runs.items():
            print_accuracies(model, modes, args.rounds)


if __name__ == "__main__":
    main()

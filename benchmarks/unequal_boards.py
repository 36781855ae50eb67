"""Boards of unequal speed: accuracy over seconds for whole epochs, --fit_seconds, auto, and --round_timeout.

    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --points points.csv
    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --points points.csv --kinds pytorch-mnist \
        --data even --modes whole fit_seconds=2 fit_seconds=auto --seeds 1 --speeds 1 0.25 0.05 --budget 60

Real servers and clients. Each client is in a CPU cgroup that gives it a part of a core, `--speeds`, from when it waits
for the server on: its start does not count. The clock starts with the first round. A mode is "whole" or a flag of
server.py. Accuracies are the server's own, on the test split; the time that these take counts. A run ends after
`--budget` seconds. "even" are IID partitions, "uneven" those of a Dirichlet distribution with alpha 0.3.

`--points` is a CSV file with the points of all runs. A run that is in it is not done again. Needs root, Linux, and real
images.
"""

from __future__ import annotations

import argparse
import csv
import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Iterator, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation import partition_file
from federation.flags import path
from federation.partitions import Examples, load_partition, load_test_split
from federation.tables import read_table

import numpy as np
from common import TIMEOUT, print_head, print_row, versions
from processes import Processes, free_address

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds in which a group may run for its part of them
ALPHA = 0.3
COLUMNS = "kind", "data", "mode", "seed", "round", "seconds", "accuracy"


class Kind(NamedTuple):
    """A framework, a data set, and what suits them."""

    num_partitions: int  # clients take the first ones
    modes: tuple[str, ...]
    budget: float  # seconds
    target: float  # accuracy


KINDS = {
    "pytorch-mnist": Kind(
        3,
        ("whole", "fit_seconds=0.5", "fit_seconds=1", "fit_seconds=2", "fit_seconds=auto", "round_timeout=5"),
        90,
        0.95,
    ),
    "pytorch-cifar10": Kind(
        5,
        ("whole", "fit_seconds=5", "fit_seconds=10", "fit_seconds=20", "fit_seconds=auto", "round_timeout=60"),
        600,
        0.4,
    ),
    "tf-mnist": Kind(
        3,
        ("whole", "fit_seconds=1", "fit_seconds=2", "fit_seconds=4", "fit_seconds=auto", "round_timeout=10"),
        150,
        0.95,
    ),
}


@contextmanager
def cpu_group(cores: float) -> Iterator[Path]:
    """Make a cgroup whose processes have that part of a core; yield the file that takes their ids."""
    is_version_2 = (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / ("" if is_version_2 else "cpu") / f"board-{secrets.token_hex(4)}"
    quota = round(cores * PERIOD)
    limit, text = ("cpu.max", f"{quota} {PERIOD}") if is_version_2 else ("cpu.cfs_quota_us", f"{quota}")
    group.mkdir()
    try:
        (group / limit).write_text(text)  # the period is this one from the start
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def points_of_run(kind: str, data_dir: Path, mode: str, seed: int, args: argparse.Namespace) -> list:
    """Run a federation for `args.budget` seconds; return the seconds and the accuracy at the end of each round."""
    framework, dataset = kind.split("-")
    address = free_address()
    shared = ["--server_address", address, *(["--mnist"] if dataset == "mnist" else [])]
    name, _, value = mode.partition("=")
    wanted = len(args.speeds) - 1 if name == "round_timeout" else len(args.speeds)  # rounds go on without the slowest
    with ExitStack() as stack:
        groups = [stack.enter_context(cpu_group(cores)) for cores in args.speeds]
        processes = stack.enter_context(Processes(Path(stack.enter_context(TemporaryDirectory()))))
        flags = "--data_dir", data_dir, "--num_clients", KINDS[kind].num_partitions, "--threads", 1
        clients = [
            processes.start(f"client_{framework}.py", "--cid", cid, *flags, *shared) for cid in range(len(groups))
        ]
        for client, group in zip(clients, groups):
            client.wait_for("waiting for it")
            group.write_text(f"{client.popen.pid}")
        results = processes.folder / "results"
        server = processes.start(
            "server.py", *shared, *("--rounds", args.rounds, "--min_num_clients", wanted, "--seed", seed),
            *("--results_dir", results, "--data_dir", args.data_dir, "--evaluate_with", framework),
            *([] if mode == "whole" else [f"--{name}", value]),
        )  # fmt: skip
        clients[-1].popen.send_signal(signal.SIGSTOP)  # so that no round begins without one of the others
        server.wait_for(f"has joined, {len(clients) - 1} now")
        clients[-1].popen.send_signal(signal.SIGCONT)
        budget = args.budget or KINDS[kind].budget
        give_up_at = time.monotonic() + TIMEOUT
        points, started = [], time.monotonic()
        while server.popen.poll() is None and (not points or time.monotonic() < started + budget):
            assert time.monotonic() < give_up_at, server.output
            time.sleep(0.05)
            for row in read_table(results / "rounds.csv")[len(points) :]:
                if not points:
                    started = time.monotonic() - float(row["seconds"])
                points.append((time.monotonic() - started, float(row["central_accuracy"])))
        assert points, server.output
        return points


def write_uneven(dataset: str, num_partitions: int, data_dir: Path, folder: Path) -> None:
    """Write partitions of all training images of `data_dir` into `folder`, their labels shared out by Dirichlet's law."""
    import datasets
    from flwr_datasets.partitioner import DirichletPartitioner

    images, labels = (np.concatenate(arrays) for arrays in zip(*load_partition(dataset, 0, 1, data_dir)))
    partitioner = DirichletPartitioner(num_partitions=num_partitions, partition_by="label", alpha=ALPHA, seed=42)
    partitioner.dataset = datasets.Dataset.from_dict({"label": labels, "row": range(len(labels))})
    for cid in range(num_partitions):
        rows = partitioner.load_partition(cid)["row"][:]
        examples = Examples(images[rows], labels[rows])
        partition_file.write(folder / dataset / f"{num_partitions}" / f"{cid}.npz", examples, cut_from=[])


def run(kind: str, data: str, mode: str, seed: int, data_dir: Path, args: argparse.Namespace) -> None:
    """Add the points of a run to the file of points, unless they are there."""
    key = {"kind": kind, "data": data, "mode": mode, "seed": f"{seed}"}
    if any(key.items() <= row.items() for row in read_table(args.points)):
        return
    is_new = not args.points.exists()
    points = points_of_run(kind, data_dir, mode, seed, args)
    with args.points.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if is_new:
            table.writeheader()
        for i, (seconds, accuracy) in enumerate(points):
            table.writerow({**key, "round": i + 1, "seconds": f"{seconds:.2f}", "accuracy": accuracy})
    shown = ", ".join(
        f"{100 * accuracy:.1f} % at {seconds:.1f} s" for seconds, accuracy in points[:: len(points) // 8 + 1]
    )
    print(f"{kind}, {data}, {mode}, seed {seed}: {len(points)} rounds, {shown}", flush=True)


def main() -> None:
    """Run what is not in the file of points yet, print a table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=path, required=True)
    parser.add_argument("--points", type=path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--data", nargs="+", choices=("even", "uneven"), default=["even", "uneven"])
    parser.add_argument("--modes", nargs="+", help="(default: what suits the kind)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--speeds", type=float, nargs="+", default=[1.0, 1 / 4, 1 / 20], help="slowest last")
    parser.add_argument("--budget", type=float, help="seconds of a run (default: what suits the kind)")
    parser.add_argument("--rounds", type=int, default=1000, help="end a run after so many, at the latest")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make CPU cgroups")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no cgroup is left behind
    with TemporaryDirectory() as folder:
        for kind in args.kinds:
            dataset, num_partitions = kind.split("-")[1], KINDS[kind].num_partitions
            load_test_split(dataset, args.data_dir)
            for cid in range(len(args.speeds)):
                load_partition(dataset, cid, num_partitions, args.data_dir)
            if "uneven" in args.data:
                write_uneven(dataset, num_partitions, args.data_dir, Path(folder))
            for seed in args.seeds:
                for data in args.data:
                    for mode in args.modes or KINDS[kind].modes:
                        run(kind, data, mode, seed, Path(folder) if data == "uneven" else args.data_dir, args)


if __name__ == "__main__":
    main()

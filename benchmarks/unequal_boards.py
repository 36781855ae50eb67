"""Boards of unequal speed: accuracy over seconds for whole epochs, --fit_seconds, auto, and --round_timeout.

    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --points points.csv --picture boards.png
    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --points points.csv --kinds tf-mnist --data even
    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --points points.csv --modes whole fit_seconds=2

Real servers and clients. Each client is in a CPU cgroup that gives it a part of a core, `--speeds`, from when it waits
for the server on: its start does not count. The clock starts with the first round. A mode is "whole", or a flag of
server.py; with round_timeout, rounds do not wait for the slowest client to come back. "even" are IID partitions,
"uneven" those of `--alpha 0.3`. Accuracies are the server's own, on the test split; the time that these take counts. A
run ends after `--budget` seconds.

`--points` is a CSV file with the points of all runs. A run that is in it is not done again. From all that is in it come
the picture and the first table: medians over the seeds of the seconds to an accuracy, and of the accuracy at the time
when the first of the runs had ended its last round. The second table is the time of a fit with a bound that is never
reached over that of one without, on a whole core; both in turn, medians. Needs root, Linux, and real images.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import secrets
import signal
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Dict, Iterator, List, NamedTuple, Tuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.flags import path
from federation.results.tables import read_table

import numpy as np
from baseline import load_client
from common import TIMEOUT, append_rows, noise, print_head, print_row, versions
from matplotlib.figure import Figure
from processes import Processes, free_address

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds in which a group may run for its part of them; the kernel's own default
FLAGS = {"even": [], "uneven": ["--alpha", 0.3]}  # of the clients
COLUMNS = "kind", "data", "mode", "seed", "round", "seconds", "accuracy"
LOOK_EVERY = 0.05  # seconds

Points = List[Tuple[float, float]]  # seconds and accuracy at the end of each round
Runs = Dict[str, Dict[str, Points]]  # by mode and seed


class Kind(NamedTuple):
    """What suits a framework and a data set."""

    num_partitions: int  # clients have the first ones
    budget: float  # seconds
    target: float  # accuracy
    bounds: tuple[float, ...]  # for --fit_seconds
    round_timeout: float  # in which all but the slowest client are done

    @property
    def modes(self) -> list[str]:
        """All modes that are compared."""
        bounds = [f"fit_seconds={bound:g}" for bound in self.bounds]
        return ["whole", "fit_seconds=auto", *bounds, f"round_timeout={self.round_timeout:g}"]


KINDS = {
    "pytorch-mnist": Kind(3, 120, 0.95, (0.5, 1, 2, 4), 10),
    "pytorch-cifar10": Kind(5, 600, 0.35, (5, 10, 20), 60),
    "tf-mnist": Kind(3, 180, 0.95, (1, 2, 4), 20),
}


@contextmanager
def cpu_group(cores: float) -> Iterator[Path]:
    """Make a cgroup whose processes have that part of a core; yield the file that takes their ids."""
    quota = round(cores * PERIOD)
    folder, limit, text = CGROUPS / "cpu", "cpu.cfs_quota_us", f"{quota}"
    if (CGROUPS / "cgroup.controllers").exists():  # version 2
        folder, limit, text = CGROUPS, "cpu.max", f"{quota} {PERIOD}"
        (folder / "cgroup.subtree_control").write_text("+cpu")
    group = folder / f"board-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / limit).write_text(text)
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def run(kind: str, data: str, mode: str, seed: str, args: argparse.Namespace) -> Points:
    """Run a federation until its time is over, one round at least."""
    framework, dataset = kind.split("-")
    shared = ["--server_address", free_address(), "--data_dir", args.data_dir.resolve()]
    shared += ["--mnist"] if dataset == "mnist" else []
    flags = ["--num_clients", KINDS[kind].num_partitions, "--threads", 1, *FLAGS[data]]
    name, _, value = mode.partition("=")
    wanted = len(args.speeds) - (name == "round_timeout")
    budget = args.budget or KINDS[kind].budget
    with ExitStack() as stack:
        groups = [stack.enter_context(cpu_group(cores)) for cores in args.speeds]
        processes = stack.enter_context(Processes(Path(stack.enter_context(TemporaryDirectory()))))
        results = processes.folder / "results"
        clients = [
            processes.start(f"client_{framework}.py", "--cid", cid, *flags, *shared) for cid in range(len(groups))
        ]
        for client, group in zip(clients, groups):
            client.wait_for("waiting for it")
            group.write_text(f"{client.popen.pid}")
        clients[-1].popen.send_signal(signal.SIGSTOP)  # else the first round may begin with it, and without a fast one
        server = processes.start(
            "server.py", *shared, *("--rounds", args.rounds, "--min_num_clients", wanted, "--seed", seed),
            *("--results_dir", results, "--evaluate_with", framework),
            *([f"--{name}", value] if value else []),
        )  # fmt: skip
        server.wait_for(f"has joined, {len(clients) - 1} now")
        clients[-1].popen.send_signal(signal.SIGCONT)
        points: Points = []
        started = time.monotonic()
        while server.popen.poll() is None and time.monotonic() < started + (budget if points else TIMEOUT):
            time.sleep(LOOK_EVERY)
            for row in read_table(results / "rounds.csv")[len(points) :]:
                if not points:
                    started = time.monotonic() - float(row["seconds"])
                points.append((time.monotonic() - started, float(row["central_accuracy"])))
        assert points and (name == "round_timeout" or "does not count" not in server.output), server.output
        return points


def add_run(key: dict[str, str], args: argparse.Namespace) -> None:
    """Do a run and add its points to the file, unless they are there; print a line."""
    if any(key.items() <= row.items() for row in read_table(args.points)):
        return
    points = run(**key, args=args)
    rows = (
        {**key, "round": i + 1, "seconds": f"{seconds:.2f}", "accuracy": accuracy}
        for i, (seconds, accuracy) in enumerate(points)
    )
    append_rows(args.points, COLUMNS, rows)
    some = [*points[: -1 : len(points) // 6 + 1], points[-1]]
    shown = ", ".join(f"{100 * accuracy:.1f} % at {seconds:.1f} s" for seconds, accuracy in some)
    print(f"{', '.join(key.values())}: {len(points)} rounds, {shown}", flush=True)


def read_runs(file: Path) -> dict[tuple[str, str], Runs]:
    """Return all runs, by kind and data."""
    runs: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in read_table(file):
        points = runs[row["kind"], row["data"]][row["mode"]][row["seed"]]
        points.append((float(row["seconds"]), float(row["accuracy"])))
    return runs


def accuracy_at(seconds: float, points: Points) -> float:
    """Return the accuracy after the last round that had ended by then, NaN before the first."""
    return next((accuracy for at, accuracy in reversed(points) if at <= seconds), math.nan)


def print_runs(kind: str, data: str, runs: Runs) -> None:
    """Print a row for each mode."""
    target = KINDS[kind].target
    end = min(points[-1][0] for seeds in runs.values() for points in seeds.values())
    reached = {
        mode: median(next((at for at, accuracy in points if accuracy >= target), math.inf) for points in seeds.values())
        for mode, seeds in runs.items()
    }
    best = min((at for mode, at in reached.items() if re.match(r"fit_seconds=\d", mode)), default=math.nan)
    for mode, seeds in runs.items():
        ratios = reached[mode] / reached.get("whole", math.nan), reached[mode] / best  # 0: by infinity
        accuracy = median(accuracy_at(end, points) for points in seeds.values())
        cells = f"{reached[mode]:.0f} s to {100 * target:g} %", *(f"{ratio:.2f}" for ratio in ratios)
        shown = (cell if 0 < float(cell.split()[0]) < math.inf else "-" for cell in cells)
        print_row(f"{kind}, {data}", mode.replace("=", " "), *shown, f"{100 * accuracy:.1f} % at {end:.0f} s")


def draw(all_runs: dict[tuple[str, str], Runs], picture: Path) -> None:
    """Draw a row of axes for each kind and a column for each sort of data, with a curve for each mode."""
    kinds, columns = ([*dict.fromkeys(names)] for names in zip(*all_runs))
    modes = [*dict.fromkeys(mode for runs in all_runs.values() for mode in runs)]  # the same colours everywhere
    figure = Figure(figsize=(9, 1 + 3 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(columns), sharey="row", squeeze=False)
    for (kind, data), runs in all_runs.items():
        axis = axes[kinds.index(kind)][columns.index(data)]
        end = max(points[-1][0] for seeds in runs.values() for points in seeds.values())
        grid = np.linspace(0, end, 500)
        for mode in sorted(runs, key=modes.index):
            curve = [np.median([accuracy_at(at, points) for points in runs[mode].values()]) for at in grid]
            label = "whole epochs" if mode == "whole" else f"--{mode.replace('=', ' ')}"
            axis.plot(grid, 100 * np.array(curve), color=f"C{modes.index(mode)}", label=label)
        bottom = 100 * KINDS[kind].target - 15
        axis.set(
            title=f"{kind}, {data} data", xlabel="seconds", ylabel="accuracy on test images, %", ylim=(bottom, None)
        )
        axis.grid(alpha=0.3)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    figure.savefig(picture, dpi=110)


def cost_of_bound(kind: str, repeat: int) -> float:
    """Return the time of a fit with a bound that is never reached over that of one without; medians, both in turn."""
    framework, dataset = kind.split("-")
    client = load_client(framework, seed=0)
    examples = noise(dataset, 500)
    flower_client = client.FlowerClient(dataset, examples, examples)
    parameters = [array.copy() for array in flower_client.get_parameters({})]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for i in range(2 * repeat + 2):
        has_bound = i % 4 in (1, 2)  # so that neither is always the second
        started = time.process_time()  # what else runs on this machine does not count
        flower_client.fit(parameters, {"epochs": 1, **({"fit_seconds": 3600.0} if has_bound else {})})
        seconds[has_bound].append(time.process_time() - started)
    return median(seconds[True][1:]) / median(seconds[False][1:])  # the first ones do not count


def main() -> None:
    """Do the runs that are missing, then print the tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=path, required=True)
    parser.add_argument("--points", type=path, required=True)
    parser.add_argument("--picture", type=path)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--data", nargs="*", choices=list(FLAGS), default=list(FLAGS))
    parser.add_argument("--modes", nargs="+", help="(default: what suits the kind)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--speeds", type=float, nargs="+", default=[1.0, 1 / 4, 1 / 20], help="slowest last")
    parser.add_argument("--budget", type=float, help="seconds of a run (default: what suits the kind)")
    parser.add_argument("--rounds", type=int, default=1000, help="of a run, at the most (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=30, help="fits with and without a bound (default: %(default)s)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make CPU cgroups")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no cgroup stays behind
    print(versions())
    for kind, seed, data in itertools.product(args.kinds, args.seeds, args.data):
        for mode in args.modes or KINDS[kind].modes:
            add_run({"kind": kind, "data": data, "mode": mode, "seed": f"{seed}"}, args)
    all_runs = read_runs(args.points)
    print_head("clients", "mode", "seconds", "/ whole", "/ best bound", "accuracy")
    for (kind, data), runs in all_runs.items():
        print_runs(kind, data, runs)
    if args.picture is not None:
        draw(all_runs, args.picture)
    print_head("clients", "a fit with a bound that is not reached / without")
    for kind in args.kinds if args.repeat else ():
        print_row(kind, f"{cost_of_bound(kind, args.repeat):.3f}")


if __name__ == "__main__":
    main()

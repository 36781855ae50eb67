"""Boards of unequal speed: accuracy over seconds for whole epochs, --fit_seconds, auto, and --round_timeout.

    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --picture boards.png
    sudo .venv/bin/python benchmarks/unequal_boards.py --data_dir data --data even --modes whole fit_seconds=2

A real server and PyTorch clients on MNIST. Each client is in a CPU cgroup that gives it a part of a core, `--speeds`,
slowest last, from when it waits for the server on: its start does not count. The clock starts with the first round. A
mode is "whole", or a flag of server.py; with round_timeout, rounds do not wait for the slowest client to come back.
"even" are IID partitions, "uneven" those of `--alpha 0.3`. Accuracies are the server's own, on the test split; the time
that these take counts. A run ends after `--budget` seconds or `--rounds`. The accuracy in the table is that at the time
when the first of the runs with the same data had ended its last round. Needs root, Linux, and real images.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import signal
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator, List, Tuple

from common import parser_of, print_head, print_row, rounds_of
from matplotlib.figure import Figure
from processes import Processes, free_address

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds in which a group may run for its part of them; the kernel's own default
FLAGS = {"even": [], "uneven": ["--alpha", 0.3]}  # of the clients
MODES = ["whole", "fit_seconds=1", "fit_seconds=auto", "round_timeout=10"]
TARGET = 0.95

Points = List[Tuple[float, float]]  # seconds and accuracy at the end of each round


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


def run(data: str, mode: str, args: argparse.Namespace) -> Points:
    """Run a federation until its time is over, one round at least."""
    shared = "--server_address", free_address(), "--data_dir", args.data_dir.resolve(), "--mnist"
    flags = "--num_clients", len(args.speeds), "--threads", 1, *FLAGS[data]
    name, _, value = mode.partition("=")
    wanted = len(args.speeds) - (name == "round_timeout")
    with ExitStack() as stack:
        groups = [stack.enter_context(cpu_group(cores)) for cores in args.speeds]
        processes = stack.enter_context(Processes(Path(stack.enter_context(TemporaryDirectory()))))
        results = processes.folder / "results"
        clients = [processes.start("client_pytorch.py", "--cid", cid, *flags, *shared) for cid in range(len(groups))]
        for client, group in zip(clients, groups):
            client.wait_for("waiting for it")
            group.write_text(f"{client.popen.pid}")
        clients[-1].popen.send_signal(signal.SIGSTOP)  # else the first round may begin with it, and without a fast one
        server = processes.start(
            "server.py", *shared, *("--rounds", args.rounds, "--min_num_clients", wanted, "--seed", args.seed),
            *("--results_dir", results, "--evaluate_with", "pytorch"),
            *([f"--{name}", value] if value else []),
        )  # fmt: skip
        server.wait_for(f"has joined, {len(clients) - 1} now")
        clients[-1].popen.send_signal(signal.SIGCONT)
        points = [(at, float(row["central_accuracy"])) for at, row in rounds_of(server, results, args.budget)]
        assert points and (name == "round_timeout" or "does not count" not in server.output), server.output
        return points


def print_runs(data: str, runs: dict[str, Points]) -> None:
    """Print a row for each mode."""
    end = min(points[-1][0] for points in runs.values())
    reached = {
        mode: next((at for at, accuracy in points if accuracy >= TARGET), math.inf) for mode, points in runs.items()
    }
    whole = reached.get("whole", math.inf)
    for mode, points in runs.items():
        ratio = reached[mode] / whole if math.isfinite(whole) else math.nan
        cells = (f"{figure:.2f}" if math.isfinite(figure) else "-" for figure in (reached[mode], ratio))
        accuracy = next((accuracy for at, accuracy in reversed(points) if at <= end), math.nan)
        print_row(data, mode.replace("=", " "), *cells, f"{100 * accuracy:.1f} % at {end:.0f} s")


def draw(all_runs: dict[str, dict[str, Points]], picture: Path) -> None:
    """Draw axes for each sort of data, with a curve for each mode."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, (data, runs) in zip(figure.subplots(1, len(all_runs), sharey=True, squeeze=False)[0], all_runs.items()):
        end = max(points[-1][0] for points in runs.values())
        for mode, points in runs.items():
            label = "whole epochs" if mode == "whole" else f"--{mode.replace('=', ' ')}"
            seconds, accuracies = zip(*points, (end, points[-1][1]))  # the last model stays until the end
            axis.step(seconds, [100 * accuracy for accuracy in accuracies], where="post", label=label)
        axis.set(title=f"{data} data", xlabel="seconds", ylim=(100 * TARGET - 15, None))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy on test images, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Do the runs, print the table and draw the picture."""
    each = {"seed": 1, "speeds": [1.0, 1 / 4, 1 / 20], "budget": 70.0, "rounds": 1000}
    parser = parser_of(__doc__, data_dir=Path, data=tuple(FLAGS), modes=MODES, **each)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can make CPU cgroups")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no cgroup stays behind
    print_head("data", "mode", f"seconds to {100 * TARGET:g} %", "/ whole", "accuracy")
    all_runs = {}
    for data in args.data:
        all_runs[data] = {mode: run(data, mode, args) for mode in args.modes}
        print_runs(data, all_runs[data])
    if args.picture is not None:
        draw(all_runs, args.picture)


if __name__ == "__main__":
    main()

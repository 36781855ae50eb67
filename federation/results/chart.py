"""Draw history.png from a run's tables: python -m federation.results.chart results/monday."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from federation.files import drawn
from federation.flags import ArgumentParser, path
from federation.results.compare import read_run
from federation.results.tables import Rows, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_history(folder: Path) -> None:
    """Draw loss and accuracy by round, and seconds by client, into history.png beside the tables.

    Raises OSError, ValueError or ImportError if that fails.
    """
    run = read_run(folder)
    with drawn(folder / "history.png", width=12, height=3.5) as figure:
        from matplotlib.ticker import MaxNLocator

        loss, accuracy, times = figure.subplots(1, 3)
        _draw_metric(loss, run.rounds, "loss")
        _draw_metric(accuracy, run.rounds, "accuracy")
        _draw_times(times, run.clients)
        for axis in (loss, accuracy, times):
            axis.set_xlabel("round")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if 1 <= len(axis.get_lines()) <= 10:  # more names than that hide the curves
                axis.legend()


def _draw_metric(axis: Axes, rounds: Rows, name: str) -> None:
    _draw_curve(axis, rounds, name, "clients' validation images")
    _draw_curve(axis, rounds, f"central_{name}", "test images, on the server")
    axis.set(title=f"Global model: {name}")


def _draw_times(axis: Axes, clients: Rows) -> None:
    by_cid: dict[str, Rows] = {}
    for row in clients:
        by_cid.setdefault(row["cid"], []).append(row)
    for cid in sorted(by_cid.keys() - {""}, key=number):  # plain Flower clients have none
        _draw_curve(axis, by_cid[cid], "seconds", f"client {cid}")
    axis.set(title="Training time by client", ylabel="seconds", ylim=(0, None))


def _draw_curve(axis: Axes, rows: Rows, column: str, label: str) -> None:
    """Draw the numbers in a column by round, if there are any."""
    points = [(int(row["round"]), number(row.get(column, ""))) for row in rows]
    points = [(server_round, value) for server_round, value in points if math.isfinite(value)]
    if points:
        axis.plot(*zip(*points), marker="o", label=label)


def main() -> None:
    """Draw for the folder that the command line names, at a low priority."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder", type=path, metavar="FOLDER", help="folder with the results of a run")
    try:
        draw_history(parser.parse_args().folder)
    except Exception as error:  # the disk is full, or whatever matplotlib raises
        sys.exit(f"cannot draw history.png: {error}")


if __name__ == "__main__":
    main()

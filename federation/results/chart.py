"""The picture of a run: loss and accuracy by round, seconds by client: python -m federation.results.chart results/monday."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from federation.files import replaced
from federation.results.tables import Rows, number, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_history(path: Path, rounds: Rows, clients: Rows) -> None:
    """Draw into the file `path` what rounds.csv and clients.csv say; raises OSError if it cannot be written."""
    from matplotlib.figure import Figure  # here, because only the end of a run pays for this import
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, name in zip(axes, ("loss", "accuracy")):
        for column, label in ((name, "clients' validation images"), (f"central_{name}", "test images, on the server")):
            _draw_curve(axis, rounds, column, label)
        axis.set(title=f"Global model: {name}", xlabel="round")
        if axis.get_lines():
            axis.legend()
    by_cid: dict[float, Rows] = {}
    for row in clients:
        by_cid.setdefault(number(row.get("cid", "")), []).append(row)
    for cid in sorted(cid for cid in by_cid if cid == cid):  # plain Flower clients have none: NaN
        _draw_curve(axes[2], by_cid[cid], "seconds", f"client {cid:.0f}")
    axes[2].set(title="Training time by client", xlabel="round", ylabel="seconds")
    axes[2].update_datalim([(1, 0)])  # before the limits are chosen: their margin is for the whole height then
    axes[2].autoscale_view()
    axes[2].set_ylim(bottom=0)
    if 1 <= len(axes[2].get_lines()) <= 10:  # more names than that hide the curves
        axes[2].legend()
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=100)


def _draw_curve(axis: Axes, rows: Rows, column: str, label: str) -> None:
    """Draw the numbers in a column by round, if there are any."""
    points = [(number(row["round"]), number(row.get(column, ""))) for row in rows]
    points = [point for point in points if math.isfinite(sum(point))]
    if points:
        axis.plot(*zip(*points), marker="o", label=label)


def main() -> None:
    """Draw history.png in the folder that the command line names, without keeping others from the processor."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)
    folder = Path(sys.argv[1])
    draw_history(folder / "history.png", *(read_table(folder / name) for name in ("rounds.csv", "clients.csv")))


if __name__ == "__main__":
    main()

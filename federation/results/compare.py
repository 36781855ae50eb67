"""Compare runs: python -m federation.results.compare results/monday results/tuesday [--accuracy 0.9]."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Sequence

from federation.files import replaced
from federation.flags import ArgumentParser, content, fraction, print_lines
from federation.results.tables import Rows, number, read_table

TESTED_ON = {"central_accuracy": "the server's test images", "accuracy": "the clients' validation images"}
COSTS = {  # by their name here: table, columns, digits
    "seconds": ("rounds.csv", ["seconds"], 1),
    "megabytes": ("clients.csv", ["sent_mb", "received_mb"], 1),
    "joules": ("clients.csv", ["energy_j"], 0),
}
TOLERANCE = 1e-6  # TensorFlow's accuracies are float32: its 0.9 is 0.89999998
MARK = b"federation.results.compare"  # in the pictures that are made here, and may be replaced

# Those of Okabe and Ito (2008), which the colour-blind can tell apart, with grey for yellow: that is too bright here.
COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888"
MARKERS = "os^DvP*X"
STYLES = "-", ":", "-."
MARKERS_IN_A_CURVE = 10


class Run(NamedTuple):
    """A run's folder and what is in its tables, by file name."""

    folder: Path
    tables: dict[str, Rows]

    def accuracies(self, column: str) -> dict[int, float]:
        """Return by round what is known of a column of rounds.csv, in order."""
        known = {int(row["round"]): number(row.get(column, "")) for row in self.tables["rounds.csv"]}
        return {server_round: value for server_round, value in sorted(known.items()) if math.isfinite(value)}

    def costs(self, name: str, last_rounds: Iterable[int]) -> Iterator[tuple[float, bool]]:
        """Yield what is known of a cost until the end of each round, NaN if nothing is, and whether that is all."""
        table, columns, _ = COSTS[name]
        by_round: dict[int, list[float]] = {}
        for row in self.tables[table]:
            value = sum(number(row.get(column, "")) for column in columns)
            by_round.setdefault(int(row["round"]), []).append(value)
        for last_round in last_rounds:
            rounds = [values for server_round, values in by_round.items() if server_round <= last_round]
            values = [*itertools.chain(*rounds)]
            known = [value for value in values if math.isfinite(value)]
            is_whole = len(known) == len(values) and len(rounds) == last_round
            yield math.fsum(known) if known else math.nan, is_whole


def read_run(folder: Path) -> Run:
    """Read the tables in a folder of results, or beside its rounds.csv; more may come while the run goes on.

    Raises OSError if they cannot be read, ValueError if there is no rounds.csv.
    """
    folder = Path(os.path.abspath(folder.parent if folder.name == "rounds.csv" else folder))  # noqa: PTH100  as named
    if "rounds.csv" not in (path.name for path in folder.iterdir()):
        raise ValueError("it has no rounds.csv, as the results of a run have")
    return Run(folder, {name: read_table(folder / name) for name in ("rounds.csv", "clients.csv")})


class Comparison:
    """Runs, each once, in the order given, and the accuracy by which they are compared.

    It is that on the server's test images, or that on the clients' if more runs know that one.
    """

    def __init__(self, runs: Sequence[Run], accuracy: float | None) -> None:
        """Without an `accuracy`, take the highest that all reach that have one, in three digits."""
        self.runs = list({run.folder: run for run in runs}.values())
        self.column = max(TESTED_ON, key=lambda column: sum(bool(run.accuracies(column)) for run in self.runs))
        self.curves = [run.accuracies(self.column) for run in self.runs]
        self.is_given = accuracy is not None
        common = min((max(curve.values()) for curve in self.curves if curve), default=0.0)
        self.accuracy = math.floor((common + TOLERANCE) * 1000) / 1000 if accuracy is None else accuracy

    @property
    def names(self) -> list[str]:
        """Name each run by the shortest end of its folder's path that no other one has."""
        paths = [run.folder.parts for run in self.runs]
        names = []
        for path in paths:
            lengths = range(1, len(path) + 1)
            length = next(n for n in lengths if sum(other[-n:] == path[-n:] for other in paths) == 1)
            names.append(str(Path(*path[-length:])))
        return names

    def table(self) -> str:
        """Return a line for each run: what it took to reach the accuracy, its best and its last accuracy."""
        rows = [["run", "rounds", *COSTS, "best", "last"]]
        for name, run, curve in zip(self.names, self.runs, self.curves):
            reached = next((r for r, value in curve.items() if value >= self.accuracy - TOLERANCE), None)
            costs = [_cell(run, cost, reached) for cost in COSTS]
            values = [*curve.values()]
            figures = [f"{value:.4f}" for value in (max(values), values[-1])] if values else ["-", "-"]
            rows.append([name, str(reached or "-"), *costs, *figures])
        columns = [column for column in zip(*rows) if column[0] not in COSTS or "".join(column[1:]).strip("-")]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join([cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))])
            for cells in zip(*columns)
        ]
        origin = "" if self.is_given else " (the highest that all reach)"
        lines.insert(0, f"Until an accuracy of {self.accuracy:g}{origin} on {TESTED_ON[self.column]}:")
        if any(cell.endswith("+") for column in columns[1:] for cell in column):
            lines.append("+ and more: some rounds or clients did not tell theirs")
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """Draw accuracy by round, by seconds and, where all clients told them, by joules into the file `path`.

        Raises OSError if it cannot be written.
        """
        from matplotlib.figure import Figure  # here, because the table does without it
        from matplotlib.ticker import MaxNLocator

        panels: dict[str, list[list[float]]] = {
            "round": [[*curve] for curve in self.curves],
            "seconds": [
                [cost for cost, _ in run.costs("seconds", curve)] for run, curve in zip(self.runs, self.curves)
            ],
            "joules": [
                [cost if is_whole else math.nan for cost, is_whole in run.costs("joules", curve)]
                for run, curve in zip(self.runs, self.curves)
            ],
        }
        if not any(map(math.isfinite, itertools.chain(*panels["joules"]))):
            del panels["joules"]
        figure = Figure(figsize=(1 + 5 * len(panels), max(4.0, 0.25 * len(self.runs))), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for axis, (unit, costs) in zip(axes, panels.items()):
            for i, curve in enumerate(self.curves):
                style = {
                    "color": COLOURS[i % len(COLOURS)],
                    "marker": MARKERS[i % len(MARKERS)],
                    "markevery": max(1, len(curve) // MARKERS_IN_A_CURVE),
                    "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
                    "markersize": 5,
                }
                axis.plot(costs[i], curve.values(), **style)
            axis.axhline(self.accuracy, color="0.4", linestyle="--", linewidth=1)
            axis.set(title=f"Accuracy by {unit}", xlabel=unit)
            axis.grid(color="0.9")
        axes[0].set_ylabel(f"on {TESTED_ON[self.column]}")
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in axes[1:]:
            axis.set_xlim(left=0)
        names = [name.replace("$", r"\$") for name in self.names]  # else it begins a formula
        legend = figure.legend(axes[0].get_lines(), map(str, range(len(names) + 1)), loc="outside right upper")
        for text, name in zip(legend.get_texts(), [*names, f"accuracy {self.accuracy:g}"]):
            text.set_text(name)  # here, because a legend leaves out labels that begin with _
        with warnings.catch_warnings(), replaced(path) as file:
            warnings.simplefilter("ignore")  # about letters that the font lacks
            figure.savefig(file, format="png", dpi=100, metadata={"Source": MARK.decode()})


def png(path: Path) -> Path:
    """Check where a picture is to go; raises ValueError if it is no PNG file, or one that was not made here."""
    if path.suffix.lower() != ".png":
        raise ValueError("the picture is a PNG file, and its name has to end in .png")
    if path.exists() and MARK not in path.read_bytes():
        raise ValueError("it is there already, and no picture that was made here; take another name (--picture)")
    return path


def _cell(run: Run, cost: str, last_round: int | None) -> str:
    """Return what a cost was until a round: "-" without one, empty if unknown, with a + if more is unknown."""
    if last_round is None:
        return "-"
    ((total, is_whole),) = run.costs(cost, [last_round])
    return f"{total:.{COSTS[cost][2]}f}{'' if is_whole else '+'}" if math.isfinite(total) else ""


def main() -> None:
    """Print the table and draw the picture of the runs that the command line names."""
    print_lines()
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", type=content(read_run), nargs="+", metavar="FOLDER", help="the results of a run")
    parser.add_argument("--accuracy", type=fraction, help="compare until then (default: the highest that all reach)")
    parser.add_argument("--picture", type=content(png), default="comparison.png", help="as PNG (default: %(default)s)")
    args = parser.parse_args()
    comparison = Comparison(args.runs, args.accuracy)
    if not any(comparison.curves):
        parser.error("no accuracy is known yet of any of these runs")
    print(comparison.table())
    try:
        comparison.draw(args.picture)
    except Exception as error:  # the disk is full, or whatever matplotlib stumbles over
        parser.exit(1, f"{parser.prog}: cannot draw {args.picture}: {error}\n")
    print(f"drawn in {args.picture}")


if __name__ == "__main__":
    main()

"""Compare runs: python -m federation.results.compare results/monday results/tuesday [--accuracy 0.9]."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Sequence

from federation.files import drawn
from federation.flags import ArgumentParser, content, fraction, path, run_main
from federation.results.tables import Rows, number, read_table

TESTED_ON = {"central_accuracy": "the server's test images", "accuracy": "the clients' validation images"}
# Columns of rounds.csv for the seconds, of clients.csv for the others.
COSTS = {"seconds": ["seconds"], "megabytes": ["sent_mb", "received_mb"], "joules": ["energy_j"]}


class Run(NamedTuple):
    """A run's folder, as the user names it, and the tables in it."""

    folder: Path
    rounds: Rows
    clients: Rows

    def accuracies(self, column: str) -> dict[int, float]:
        """Known accuracies in a column of rounds.csv by round."""
        # Rounded, because TensorFlow's are float32: its 0.9 is 0.89999998.
        values = {int(row["round"]): round(number(row.get(column, "")), 6) for row in self.rounds}
        return {server_round: value for server_round, value in sorted(values.items()) if math.isfinite(value)}

    def cost(self, name: str, last_round: int) -> float:
        """The cost up to the end of a round, as far as it is known; NaN if it is unknown."""
        rows = self.rounds if name == "seconds" else self.clients
        rows = [row for row in rows if int(row["round"]) <= last_round]
        cells = [number(row.get(column, "")) for row in rows for column in COSTS[name]]
        known = [value for value in cells if math.isfinite(value)]
        return math.fsum(known) if known else math.nan


def read_run(folder: Path) -> Run:
    """Run in a folder of results; raises OSError or ValueError if its tables cannot be read."""
    if not (folder / "rounds.csv").exists():
        raise ValueError("it has no rounds.csv, so it is not a folder of results")
    return Run(folder, read_table(folder / "rounds.csv"), read_table(folder / "clients.csv"))


class Comparison:
    """Runs in the order given, and the accuracy by which they are compared.

    It is the accuracy on the server's test images if all runs know that, else on the clients'. Without an `accuracy`,
    take the highest that all runs reach, except runs that know none.
    """

    def __init__(self, runs: Sequence[Run], accuracy: float | None) -> None:
        self.runs = runs
        is_tested = all(run.accuracies("central_accuracy") for run in runs if run.rounds)
        self.column = "central_accuracy" if is_tested else "accuracy"
        self.curves = [run.accuracies(self.column) for run in runs]
        common = min((max(curve.values()) for curve in self.curves if curve), default=0.0)
        self.accuracy = common if accuracy is None else accuracy

    def table(self) -> str:
        """Lines with the cost at which each run reached the accuracy, and its best and its last accuracy."""
        rows = [["run", "rounds", *COSTS, "best", "last"]]
        rows += [self._cells(run, curve) for run, curve in zip(self.runs, self.curves)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [f"Until an accuracy of {self.accuracy:g} on {TESTED_ON[self.column]}:"]
        for name, *figures in rows:
            lines.append("  ".join([name.ljust(widths[0]), *map(str.rjust, figures, widths[1:])]))
        return "\n".join(lines)

    def _cells(self, run: Run, curve: dict[int, float]) -> list[str]:
        """Cells of a run's line; "-" if a value is unknown, or not reached."""
        reached = next((r for r, value in curve.items() if value >= self.accuracy), None)
        costs = [math.nan if reached is None else run.cost(name, reached) for name in COSTS]
        values = [*curve.values()] or [math.nan]
        cells = [str(run.folder), str(reached), *(f"{cost:.1f}" for cost in costs)]
        cells += [f"{max(values):.4f}", f"{values[-1]:.4f}"]
        return ["-" if cell in ("None", "nan") else cell for cell in cells]

    def draw(self, picture: Path) -> None:
        """Draw accuracy by seconds; raises OSError, ValueError or ImportError if that fails."""
        with drawn(picture, width=7, height=4.5 + 0.2 * len(self.runs)) as figure:
            axis = figure.subplots()
            for run, curve in zip(self.runs, self.curves):
                seconds = [run.cost("seconds", server_round) for server_round in curve]
                axis.plot(seconds, [*curve.values()], marker="o", markersize=4, label=str(run.folder))
            axis.axhline(self.accuracy, color="0.4", linestyle="--", linewidth=1, label=f"accuracy {self.accuracy:g}")
            axis.set(xlabel="seconds", ylabel=f"accuracy on {TESTED_ON[self.column]}", xlim=(0, None))
            axis.grid(color="0.9")
            figure.legend(loc="outside lower left")  # below: long names cover no curve there


def main() -> None:
    """Print the table of the runs that the command line names, and draw the picture that it asks for."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", type=content(read_run), nargs="+", metavar="FOLDER", help="results of a run")
    parser.add_argument("--accuracy", type=fraction, help="accuracy to reach (default: the highest that all reach)")
    parser.add_argument(
        "--picture", type=path, metavar="FILE", help="draw accuracy over time into FILE (default: no picture)"
    )
    args = parser.parse_args()
    comparison = Comparison(args.runs, args.accuracy)
    if not any(comparison.curves):
        parser.error("none of these runs has an accuracy yet")
    print(comparison.table())
    if args.picture is not None:
        try:
            comparison.draw(args.picture)
        except (OSError, ValueError, ImportError) as error:
            parser.exit(1, f"{parser.prog}: cannot draw {args.picture}: {error}\n")
        print(f"drawn in {args.picture}")


if __name__ == "__main__":
    run_main(main)

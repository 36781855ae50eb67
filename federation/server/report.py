"""What a run tells: one line per round on the terminal, and tables and a picture in the folder of results.

rounds.csv     one row per round
clients.csv    one row per client and round
history.png    loss and accuracy by round, seconds by client
"""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping

from federation.files import replaced
from federation.server.checkpoint import Checkpoint
from federation.server.client_manager import identity_of, key_of
from federation.server.validation import as_number

from flwr.common import EvaluateRes, FitRes
from flwr.server.client_proxy import ClientProxy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Dict[str, Any]  # by column

TABLES = {
    "rounds.csv": (
        "round", "clients", "failures", "loss", "accuracy", "central_loss", "central_accuracy", "seconds",
    ),
    "clients.csv": (
        "round", "cid", "device", "examples", "loss", "accuracy", "seconds",
        "train_loss", "peak_memory_mb", "temperature_c",
    ),
}  # fmt: skip


class Report:
    """Writes the tables while the run goes on. A round is added step by step and ended by `end_round`.

    All of it raises OSError if the folder cannot be written.
    """

    def __init__(self, folder: Path, resumed: Checkpoint | None = None) -> None:
        """Make `folder`; raises FileExistsError if results of another run are in it.

        With `resumed`, the checkpoint in the folder, the tables there are continued after its round.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for name in TABLES:
            if resumed is None:
                with (folder / name).open("x", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerow(TABLES[name])
            else:
                self._shorten(name, resumed)

    def _shorten(self, name: str, resumed: Checkpoint) -> None:
        """Take out of a table what is not whole or came after the checkpoint."""
        rows = [row for row in _whole_rows(self.folder / name) if int(row["round"]) <= resumed.round]
        if name == "rounds.csv" and resumed.round > max([int(row["round"]) for row in rows], default=0):
            # The server died between the training and the end of the round.
            rows.append({"round": resumed.round, "clients": resumed.results, "failures": resumed.failures})
        with replaced(self.folder / name) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
            table = csv.DictWriter(text, TABLES[name], extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
            text.detach()

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self._round: Row = {"round": server_round}
        self._clients: dict[object, Row] = {}  # by client
        self._started = time.monotonic()

    def add_fit(self, client: ClientProxy, result: FitRes) -> None:
        """Add what a client that trained reports about it."""
        self._client_row(client, result.metrics).update(examples=result.num_examples)

    def add_evaluation(self, client: ClientProxy, result: EvaluateRes) -> None:
        """Add what a client that evaluated the new global model reports; `seconds` stays that of the training."""
        seconds = self._clients.get(key_of(client), {}).get("seconds", "")
        self._client_row(client, result.metrics).update(loss=result.loss, seconds=seconds)

    def add_central_evaluation(self, loss: float, accuracy: float | None) -> None:
        """Add the server's own evaluation of the new global model."""
        self._round.update(central_loss=loss, central_accuracy=accuracy)

    def end_round(self, results: int, failures: int, loss: float | None, accuracy: float | None) -> None:
        """Add the round to the CSV files and print its line; None stands for what no client reported."""
        seconds = round(time.monotonic() - self._started, 3)
        row = {**self._round, "clients": results, "failures": failures, "loss": loss, "accuracy": accuracy}
        self._append("rounds.csv", [{**row, "seconds": seconds}])
        self._append("clients.csv", self._clients.values())
        figures = [
            f"{name.replace('_', ' ')} {row[name]:.4f}"
            for name in ("loss", "accuracy", "central_loss", "central_accuracy")
            if row.get(name) is not None
        ]
        line = ", ".join([f"{results} results and {failures} failures", *figures, f"{seconds:.1f} s"])
        print(f"round {row['round']}: {line}", flush=True)

    def _client_row(self, client: ClientProxy, metrics: Mapping[str, object]) -> Row:
        row = self._clients.setdefault(key_of(client), {"round": self._round["round"]})
        own = "round", "examples"  # not for a metric to say
        row.update({name: v for name, v in metrics.items() if name not in own and as_number(v) is not None})
        identity = identity_of(client)
        if identity is not None:
            row.update(cid=identity.cid, device=identity.device)
        return row

    def _append(self, name: str, rows: Iterable[Row]) -> None:
        with (self.folder / name).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, TABLES[name], extrasaction="ignore").writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column; none if there is no such file."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.DictReader(line.replace("\0", "") for line in file))  # NULs come from a power cut
    except FileNotFoundError:
        return []


def _whole_rows(path: Path) -> list[Row]:
    """Return the rows of a table that were written to their end."""
    rows = read_table(path)
    return [row for row in rows if None not in row and None not in row.values() and row.get("round", "").isdecimal()]


def _number(cell: str | None) -> float:
    """Return the number in a cell of a table, NaN if there is none."""
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def draw_history(folder: Path) -> None:
    """Draw history.png from the CSV files in `folder`."""
    from matplotlib.figure import Figure  # here, because only the end of a run pays for this import
    from matplotlib.ticker import MaxNLocator

    rounds = read_table(folder / "rounds.csv")
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, name in zip(axes, ("loss", "accuracy")):
        for column, label in ((name, "clients' validation images"), (f"central_{name}", "test images, on the server")):
            _draw_curve(axis, rounds, column, label)
        axis.set(title=f"Global model: {name}", xlabel="round")
        if axis.get_lines():
            axis.legend()
    clients: dict[float, list[Row]] = {}  # rows by cid
    for row in read_table(folder / "clients.csv"):
        clients.setdefault(_number(row.get("cid")), []).append(row)
    for cid in sorted(cid for cid in clients if cid == cid):  # plain Flower clients have none: NaN
        _draw_curve(axes[2], clients[cid], "seconds", f"client {cid:.0f}")
    axes[2].set(title="Training time by client", xlabel="round", ylabel="seconds")
    axes[2].set_ylim(bottom=0)
    if 1 <= len(axes[2].get_lines()) <= 10:  # more names than that hide the curves
        axes[2].legend()
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    with replaced(folder / "history.png") as file:
        figure.savefig(file, format="png", dpi=100)


def _draw_curve(axis: Axes, rows: Iterable[Row], column: str, label: str) -> None:
    """Draw the numbers in a column by round, if there are any."""
    points = [(_number(row.get("round")), _number(row.get(column))) for row in rows]
    points = [point for point in points if math.isfinite(sum(point))]
    if points:
        axis.plot(*zip(*points), marker="o", label=label)

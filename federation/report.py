"""What a run tells: one line per round on the terminal, and tables and a picture in the folder of results.

rounds.csv     one row per round
clients.csv    one row per client and round
history.png    loss and accuracy by round, seconds by client
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from federation.files import replaced

from flwr.common import EvaluateRes, FitRes, Scalar
from flwr.server.client_proxy import ClientProxy

ROUND_COLUMNS = (
    "round", "clients", "failures", "loss", "accuracy", "central_loss", "central_accuracy", "seconds",
)  # fmt: skip
CLIENT_COLUMNS = (
    "round", "cid", "device", "examples", "loss", "accuracy", "seconds",
    "train_loss", "peak_memory_mb", "temperature_c",
)  # fmt: skip


class Report:
    """Writes the tables while the run goes on. A round is added step by step and ended by `end_round`.

    All of it raises OSError if the folder cannot be written.
    """

    def __init__(self, folder: Path, last: Mapping[str, object] | None = None) -> None:
        """Make `folder`; raises FileExistsError if results of another run are in it.

        With `last`, the row of the last committed round, the tables in the folder are continued after that round.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for name, columns in (("rounds.csv", ROUND_COLUMNS), ("clients.csv", CLIENT_COLUMNS)):
            if last is None:
                with (folder / name).open("x", newline="") as file:
                    csv.writer(file).writerow(columns)
            else:
                rows = [row for row in _read_rows(folder / name, columns) if int(row["round"]) <= last["round"]]
                if name == "rounds.csv" and last["round"] > max([int(row["round"]) for row in rows], default=0):
                    rows.append(last)  # the server died between the training and the end of the round
                with replaced(folder / name) as file:
                    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
                    table = csv.DictWriter(text, columns, extrasaction="ignore")
                    table.writeheader()
                    table.writerows(rows)
                    text.detach()

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self._round: dict[str, object] = {"round": server_round}
        self._clients: dict[Scalar, dict[str, object]] = {}  # rows of clients.csv by client
        self._started = time.monotonic()

    def add_fit(self, client: ClientProxy, result: FitRes) -> None:
        """Add what a client that trained reports about it."""
        self._client_row(client, result.metrics).update(examples=result.num_examples)

    def add_evaluation(self, client: ClientProxy, result: EvaluateRes) -> None:
        """Add what a client that evaluated the new global model reports; `seconds` stays that of the training."""
        seconds = self._clients.get(_key(client), {}).get("seconds", "")
        self._client_row(client, result.metrics).update(loss=result.loss, seconds=seconds)

    def add_central_evaluation(self, loss: float, accuracy: float | None) -> None:
        """Add the server's own evaluation of the new global model."""
        self._round.update(central_loss=loss, central_accuracy=accuracy)

    def end_round(self, results: int, failures: int, loss: float | None, accuracy: float | None) -> None:
        """Add the round to the CSV files and print its line; None stands for what no client reported."""
        seconds = round(time.monotonic() - self._started, 3)
        row = {**self._round, "clients": results, "failures": failures, "loss": loss, "accuracy": accuracy}
        self._append("rounds.csv", ROUND_COLUMNS, [{**row, "seconds": seconds}])
        self._append("clients.csv", CLIENT_COLUMNS, self._clients.values())
        figures = [
            f"{name.replace('_', ' ')} {row[name]:.4f}"
            for name in ("loss", "accuracy", "central_loss", "central_accuracy")
            if row.get(name) is not None
        ]
        line = ", ".join([f"{results} results and {failures} failures", *figures, f"{seconds:.1f} s"])
        print(f"round {row['round']}: {line}", flush=True)

    def _client_row(self, client: ClientProxy, metrics: Mapping[str, object]) -> dict[str, object]:
        row = self._clients.setdefault(_key(client), {"round": self._round["round"]})
        row.update({name: value for name, value in metrics.items() if isinstance(value, (int, float))})
        row.update(client.properties)
        return row

    def _append(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
        with (self.folder / name).open("a", newline="") as file:
            csv.DictWriter(file, columns, extrasaction="ignore").writerows(rows)


def _key(client: ClientProxy) -> Scalar:
    """Return what stays the same when a client comes back on a new connection, as far as it has told."""
    return client.properties.get("cid", client.cid)


def draw_history(folder: Path) -> None:
    """Draw history.png from the CSV files in `folder`."""
    from matplotlib.figure import Figure  # here, because only the end of a run pays for this import
    from matplotlib.ticker import MaxNLocator

    rounds = _read_numbers(folder / "rounds.csv")
    clients = _read_numbers(folder / "clients.csv")
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, name in zip(axes, ("loss", "accuracy")):
        for column, label in ((name, "clients' validation images"), (f"central_{name}", "test images, on the server")):
            points = [(row["round"], row[column]) for row in rounds if column in row]
            if points:
                axis.plot(*zip(*points), marker="o", label=label)
        axis.set(title=f"Global model: {name}", xlabel="round")
        if axis.get_lines():
            axis.legend()
    for cid in sorted({row["cid"] for row in clients if "cid" in row}):
        points = [(row["round"], row["seconds"]) for row in clients if row.get("cid") == cid and "seconds" in row]
        axes[2].plot(*zip(*points), marker="o", label=f"client {cid:.0f}")
    axes[2].set(title="Training time by client", xlabel="round", ylabel="seconds")
    axes[2].set_ylim(bottom=0)
    if 1 <= len(axes[2].get_lines()) <= 10:  # more names than that hide the curves
        axes[2].legend()
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    with replaced(folder / "history.png") as file:
        figure.savefig(file, format="png", dpi=100)


def _read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the whole rows of a table; none if there is no table."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, columns))
    except FileNotFoundError:
        return []
    return [row for row in rows if row["round"].isdecimal() and None not in row.values() and None not in row]


def _read_numbers(path: Path) -> list[dict[str, float]]:
    """Read a CSV file; cells that are empty or no numbers are left out of their row."""
    rows = []
    with path.open(newline="") as file:
        for cells in csv.DictReader(file):
            row = {}
            for column, cell in cells.items():
                try:
                    row[column] = float(cell)
                except (TypeError, ValueError):
                    continue
            rows.append(row)
    return rows

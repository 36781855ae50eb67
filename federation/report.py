"""What a run leaves behind: one line per round on the terminal, and a folder of results.

The folder holds:

    rounds.csv     one row per round
    clients.csv    one row per client and round
    model.npz      the global model after the last committed round, its arrays in order
    history.png    loss and accuracy by round, seconds by client
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from federation.files import replaced

import numpy as np

ROUND_COLUMNS = (
    "round", "clients", "failures", "loss", "accuracy", "central_loss", "central_accuracy", "seconds",
)  # fmt: skip
CLIENT_COLUMNS = (
    "round", "cid", "device", "examples", "loss", "accuracy", "seconds",
    "train_loss", "peak_memory_mb", "temperature_c",
)  # fmt: skip


class Report:
    """Writes the folder of results while the run goes on. A round is added step by step and ended by `end_round`."""

    def __init__(self, folder: Path) -> None:
        """Make `folder`; raises OSError if that fails, FileExistsError if results of another run are in it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for name, columns in (("rounds.csv", ROUND_COLUMNS), ("clients.csv", CLIENT_COLUMNS)):
            with (folder / name).open("x", newline="") as file:
                csv.writer(file).writerow(columns)

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self._round: dict[str, object] = {"round": server_round}
        self._clients: dict[str, dict[str, object]] = {}  # connection -> row of clients.csv
        self._started = time.monotonic()

    def add_fit(self, connection: str, num_examples: int, metrics: Mapping[str, object]) -> None:
        """Add what a client that trained reports about it."""
        self._client_row(connection).update(metrics, examples=num_examples)

    def add_evaluation(self, connection: str, loss: float, metrics: Mapping[str, object]) -> None:
        """Add what a client that evaluated the new global model reports; `seconds` stays that of the training."""
        row = self._client_row(connection)
        row.update(metrics, loss=loss, seconds=row.get("seconds", ""))

    def add_central_evaluation(self, loss: float, accuracy: float) -> None:
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

    def save_model(self, arrays: Sequence[np.ndarray]) -> None:
        """Write the global model's arrays, in order, to model.npz."""
        with replaced(self.folder / "model.npz") as file:
            np.savez(file, *arrays)

    def _client_row(self, connection: str) -> dict[str, object]:
        return self._clients.setdefault(connection, {"round": self._round["round"]})

    def _append(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
        with (self.folder / name).open("a", newline="") as file:
            csv.DictWriter(file, columns, extrasaction="ignore").writerows(rows)


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

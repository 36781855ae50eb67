"""The report of a run: one line per round on the terminal, and tables and a picture in the folder of results.

rounds.csv     one row per round
clients.csv    one row per client and round
classes.csv    one row per class and round, if the server tests the global model
history.png    loss and accuracy by round, seconds by client
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, Mapping

from federation.files import remove_leftovers
from federation.results.checkpoint import Checkpoint
from federation.results.tables import Table, number
from federation.wire.handshake import Key, as_number, identity_of, key_of, printable

from flwr.common import EvaluateRes, FitRes
from flwr.server.client_proxy import ClientProxy

Row = Dict[str, object]  # by column
ROOT = Path(__file__).parents[2]  # of the project
DRAW_EVERY = 5  # seconds, if rounds are shorter

TRAFFIC = "sent_mb", "received_mb"  # millions of bytes, as the server sees it
NUMBERS = (  # that clients report, as they do these texts
    "epochs", "loss", "accuracy", "seconds", "train_loss", "peak_memory_mb", "temperature_c", "energy_j", "power_w",
)  # fmt: skip
TEXTS = "power_source", "throttled"
TABLES = {
    "rounds.csv": (
        "round", "clients", "failures", "loss", "accuracy", "central_loss", "central_accuracy", "seconds",
    ),
    "clients.csv": ("round", "cid", "device", "examples", *NUMBERS, *TEXTS, *TRAFFIC),
    "classes.csv": ("round", "label", "class", "examples", "accuracy"),
}  # fmt: skip


@dataclass
class Round:
    """What is known of a round."""

    number: int
    started: float | None = None  # by time.monotonic(); None: it is not under way
    central: Row = field(default_factory=dict)  # the server's own evaluation, by column of rounds.csv
    clients: dict[Key, Row] = field(default_factory=dict)  # rows of clients.csv
    classes: list[Row] = field(default_factory=list)  # rows of classes.csv

    def add(self, client: ClientProxy, metrics: Mapping[str, object]) -> Row:
        """Add what a client reports and clients.csv has a column for; return the client's row."""
        row = self.clients.setdefault(key_of(client), {"round": self.number})
        identity = identity_of(client)
        if identity is not None:
            row.update(cid=identity.cid, device=identity.device)
        numbers = {name: as_number(metrics.get(name)) for name in NUMBERS}
        row.update({name: value for name, value in numbers.items() if value is not None})
        texts = {name: metrics.get(name) for name in TEXTS}
        row.update({name: printable(value) for name, value in texts.items() if isinstance(value, str)})
        return row


class Report:
    """Writes the tables during the run. A round is added step by step and ended by `end_round`.

    If the tables cannot be written, the run goes on: they stay in memory, and the next round tries again.
    """

    def __init__(self, folder: Path, resumed: Checkpoint | None = None) -> None:
        """Make `folder`; raises FileExistsError if results of another run are in it, OSError if it cannot be made.

        With `resumed`, the checkpoint in the folder, the tables there are continued after its round: later rows are
        dropped. Raises OSError if they cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder
        self.round = Round(0 if resumed is None else resumed.round)  # the last one that began
        self.latest: dict[Key, Row] = {}  # the last row of each client
        self.durations: list[float] = []  # of the rounds, in seconds, as far as known
        self._draw = [sys.executable, "-m", "federation.results.chart", str(folder.resolve())]
        self._drawing: subprocess.Popen | None = None  # the last process that draws during the run
        self._draw_at = time.monotonic() + DRAW_EVERY
        self._tables = {name: Table(folder / name, columns) for name, columns in TABLES.items()}
        if resumed is not None:
            self._resume(resumed)
        else:
            for name in TABLES:
                (folder / name).open("x").close()
        self.save()

    def _resume(self, resumed: Checkpoint) -> None:
        kept = {name: table.resume(resumed.round) for name, table in self._tables.items()}
        self.durations = [number(row["seconds"]) for row in kept["rounds.csv"] if row["seconds"]]
        if resumed.round > max([int(row["round"]) for row in kept["rounds.csv"]], default=0):
            # The server died between the training and the end of the round.
            row = {"round": resumed.round, "clients": resumed.results, "failures": resumed.failures}
            self._tables["rounds.csv"].add([row])

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self.round = Round(server_round, time.monotonic())

    def add_fit(self, client: ClientProxy, result: FitRes) -> None:
        """Add a client's report of its training."""
        self.round.add(client, result.metrics).update(examples=result.num_examples)

    def add_evaluation(self, client: ClientProxy, result: EvaluateRes) -> None:
        """Add a client's report of its evaluation of the global model; `seconds` stays that of the training."""
        self.round.add(client, {**result.metrics, "seconds": None}).update(loss=result.loss)

    def add_traffic(self, traffic: Iterable[tuple[ClientProxy, int, int]]) -> None:
        """Add what was sent to clients and received from them, in bytes."""
        for client, *sizes in traffic:
            row = self.round.add(client, {})
            for column, size in zip(TRAFFIC, sizes):
                row[column] = round((as_number(row.get(column)) or 0) + size / 1e6, 6)

    def add_central_evaluation(self, loss: float, metrics: Mapping[str, object]) -> None:
        """Add the server's own evaluation of the new global model; its "classes" are rows of classes.csv."""
        self.round.central.update(central_loss=loss, central_accuracy=as_number(metrics.get("accuracy")))
        classes = metrics.get("classes")
        if isinstance(classes, list):
            self.round.classes = [{**row, "round": self.round.number} for row in classes]

    def end_round(self, results: int, failures: int, loss: float | None, accuracy: float | None) -> None:
        """Add the round to the tables and print its line; None: no client reported this value."""
        current = self.round
        assert current.started is not None
        seconds = round(time.monotonic() - current.started, 3)
        current.started = None
        self.durations.append(seconds)
        figures: Row = {"loss": loss, "accuracy": accuracy, **current.central}
        counts = {"clients": results, "failures": failures}
        self._tables["rounds.csv"].add([{"round": current.number, **counts, **figures, "seconds": seconds}])
        self._tables["clients.csv"].add(current.clients[key] for key in sorted(current.clients))
        self._tables["classes.csv"].add(current.classes)
        self.save()
        self.latest = {**self.latest, **current.clients}
        known = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items() if value is not None]
        megabytes = sum(as_number(row.get(column)) or 0 for row in current.clients.values() for column in TRAFFIC)
        parts = f"{results} results and {failures} failures", *known, f"{megabytes:.2f} MB", f"{seconds:.1f} s"
        print(f"round {current.number}: {', '.join(parts)}")
        self._draw_meanwhile()

    def save(self) -> None:
        """Write the tables, or print why not."""
        for table in self._tables.values():
            table.save()

    def draw(self, timeout: float | None = None) -> None:
        """Draw history.png, or print why not; it may take `timeout` seconds."""
        if self._drawing is not None:
            self._drawing.kill()  # it draws an older round
            self._drawing.wait()
        # In another process, because the first drawing on a new machine takes long, and matplotlib much memory.
        try:
            subprocess.run(self._draw, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=timeout)  # it prints its own errors
        except (OSError, subprocess.TimeoutExpired):
            later = f"python -m federation.results.chart {self.folder}"
            print(f"history.png is not drawn yet: to draw it, run {later}", file=sys.stderr)

    def _draw_meanwhile(self) -> None:
        """Begin to draw history.png, if it is time and the last drawing is done; the next round is not delayed."""
        now, quiet = time.monotonic(), subprocess.DEVNULL
        if now >= self._draw_at and (self._drawing is None or self._drawing.poll() is not None):
            self._draw_at = now + DRAW_EVERY
            with contextlib.suppress(OSError):  # too many processes
                self._drawing = subprocess.Popen(self._draw, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet)

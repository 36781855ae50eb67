"""What a run tells: one line per round on the terminal, and tables and a picture in the folder of results.

rounds.csv     one row per round
clients.csv    one row per client and round
classes.csv    one row per class and round, if the server tests the global model
history.png    loss and accuracy by round, seconds by client
"""

from __future__ import annotations

import contextlib
import math
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
DRAW_EVERY = 5  # seconds, if rounds are shorter
ROOT = Path(__file__).parents[2]  # of the project

TRAFFIC = "sent_mb", "received_mb"  # millions of bytes, as the server sees it
TEXTS = "power_source", "throttled"  # all else that clients tell are numbers
TABLES = {
    "rounds.csv": (
        "round", "clients", "failures", "loss", "accuracy", "central_loss", "central_accuracy", "seconds",
    ),
    "clients.csv": (
        "round", "cid", "device", "examples", "epochs", "loss", "accuracy", "seconds",
        "train_loss", "peak_memory_mb", "temperature_c", "energy_j", "power_w", *TEXTS, *TRAFFIC,
    ),
    "classes.csv": ("round", "label", "class", "examples", "accuracy"),
}  # fmt: skip


@dataclass
class Round:
    """What is known of a round that is under way."""

    number: int
    central: Row = field(default_factory=dict)  # the server's own evaluation, by column of rounds.csv
    clients: dict[Key, Row] = field(default_factory=dict)  # rows of clients.csv
    classes: list[Row] = field(default_factory=list)  # rows of classes.csv

    def add(self, client: ClientProxy, metrics: Mapping[str, object]) -> Row:
        """Add what a client reports and clients.csv has a column for; return the client's row."""
        row = self.clients.setdefault(key_of(client), {"round": self.number})
        for name, value in metrics.items():
            if name in TEXTS and isinstance(value, str):
                row[name] = printable(value)
            elif name not in ("round", "examples", *TEXTS, *TRAFFIC) and as_number(value) is not None:
                row[name] = value
        identity = identity_of(client)
        if identity is not None:
            row.update(cid=identity.cid, device=identity.device)
        return row


class Report:
    """Writes the tables while the run goes on. A round is added step by step and ended by `end_round`.

    That the tables cannot be written does not end a run: they are in memory, and tried again after the next round.
    """

    def __init__(self, folder: Path, resumed: Checkpoint | None = None) -> None:
        """Make `folder`; raises FileExistsError if results of another run are in it, OSError if it cannot be made.

        With `resumed`, the checkpoint in the folder, the tables there are continued after its round: what came after
        the checkpoint goes. Raises OSError if they cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder
        self.round = 0 if resumed is None else resumed.round  # the last one that began
        self.round_started: float | None = None  # by time.monotonic(); None: no round is under way
        self.latest: dict[Key, Row] = {}  # the last row of each client
        self.durations: list[float] = []  # of all rounds, in seconds; NaN: not known
        self._current = Round(self.round)
        self._drawing: subprocess.Popen | None = None
        self._draw_at = time.monotonic() + DRAW_EVERY
        self._draw = [
            sys.executable,
            "-m",
            "federation.results.chart",
            str(folder.resolve()),
        ]  # without matplotlib here
        self._tables = {name: Table(folder / name, columns, name == "classes.csv") for name, columns in TABLES.items()}
        if resumed is not None:
            self._resume(resumed)
        else:
            for table in self._tables.values():
                table.create()
        self._save()

    def _resume(self, resumed: Checkpoint) -> None:
        kept = {name: table.resume(resumed.round) for name, table in self._tables.items()}
        self.durations = [number(row["seconds"]) for row in kept["rounds.csv"]]
        if resumed.round > max([int(row["round"]) for row in kept["rounds.csv"]], default=0):
            # The server died between the training and the end of the round.
            row = {"round": resumed.round, "clients": resumed.results, "failures": resumed.failures}
            self._tables["rounds.csv"].add([row])
            self.durations.append(math.nan)

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self.round, self.round_started = server_round, time.monotonic()
        self._current = Round(server_round)

    def add_fit(self, client: ClientProxy, result: FitRes) -> None:
        """Add what a client that trained reports about it."""
        self._current.add(client, result.metrics).update(examples=result.num_examples)

    def add_evaluation(self, client: ClientProxy, result: EvaluateRes) -> None:
        """Add what a client that evaluated the new global model reports; `seconds` stays that of the training."""
        seconds = self._current.add(client, {}).get("seconds", "")
        self._current.add(client, result.metrics).update(loss=result.loss, seconds=seconds)

    def add_traffic(self, traffic: Iterable[tuple[ClientProxy, int, int]]) -> None:
        """Add what was sent to clients and received from them, in bytes."""
        for client, *sizes in traffic:
            row = self._current.add(client, {})
            for column, size in zip(TRAFFIC, sizes):
                row[column] = round((as_number(row.get(column)) or 0) + size / 1e6, 6)

    def add_central_evaluation(self, loss: float, metrics: Mapping[str, object]) -> None:
        """Add the server's own evaluation of the new global model; its "classes" are rows of classes.csv."""
        self._current.central.update(central_loss=loss, central_accuracy=as_number(metrics.get("accuracy")))
        classes = metrics.get("classes")
        if isinstance(classes, list):
            self._current.classes = [{**row, "round": self.round} for row in classes]

    def end_round(self, results: int, failures: int, loss: float | None, accuracy: float | None) -> None:
        """Add the round to the tables and print its line; None stands for what no client reported."""
        assert self.round_started is not None
        seconds = round(time.monotonic() - self.round_started, 3)
        self.round_started = None
        self.durations.append(seconds)
        current, counts = self._current, {"clients": results, "failures": failures}
        figures: Row = {"loss": loss, "accuracy": accuracy, **current.central}
        self._tables["rounds.csv"].add([{"round": current.number, **counts, **figures, "seconds": seconds}])
        self._tables["clients.csv"].add(current.clients[key] for key in sorted(current.clients))
        self._tables["classes.csv"].add(current.classes)
        self._save()
        self.latest = {**self.latest, **current.clients}
        known = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items() if value is not None]
        megabytes = sum(as_number(row.get(column)) or 0 for row in current.clients.values() for column in TRAFFIC)
        parts = f"{results} results and {failures} failures", *known, f"{megabytes:.2f} MB", f"{seconds:.1f} s"
        print(f"round {current.number}: {', '.join(parts)}")
        self._draw_meanwhile()

    def close(self) -> None:
        """Write what is not yet in the tables, or say what they lack."""
        if self._drawing is not None:
            self._drawing.kill()
            self._drawing.wait()  # else its picture could take the place of a newer one
        self._save()
        for table in self._tables.values():
            if table.trouble:
                print(f"{table.path} lacks the last rounds: cannot write it ({table.trouble})", file=sys.stderr)

    def draw(self, timeout: float | None = None) -> None:
        """Draw history.png, or say why not; `timeout` is how many seconds that may take."""
        try:
            subprocess.run(self._draw, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=timeout)  # it says itself what fails
        except subprocess.TimeoutExpired:
            print("no time to draw history.png", file=sys.stderr)
        except OSError as error:  # too many processes
            print(f"cannot draw history.png: {error}", file=sys.stderr)

    def _draw_meanwhile(self) -> None:
        """Begin to draw history.png, if it is time and the last drawing is done; the next round does not notice."""
        now, quiet = time.monotonic(), subprocess.DEVNULL
        if now >= self._draw_at and (self._drawing is None or self._drawing.poll() is not None):
            self._draw_at = now + DRAW_EVERY
            # Not in a session of its own: Linux would give that as much of the processor as the server, nice or not.
            with contextlib.suppress(OSError):  # too many processes
                self._drawing = subprocess.Popen(self._draw, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet)

    def _save(self) -> None:
        for table in self._tables.values():
            table.save()

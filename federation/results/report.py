"""What a run tells: one line per round on the terminal, and tables and a picture in the folder of results.

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
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping

from federation.files import remove_leftovers
from federation.results.chart import draw_history
from federation.results.checkpoint import Checkpoint
from federation.results.tables import Table, number
from federation.wire.handshake import Key, as_number, identity_of, key_of, printable

from flwr.common import EvaluateRes, FitRes
from flwr.server.client_proxy import ClientProxy

Row = Dict[str, Any]  # by column
DRAW_EVERY = 5  # seconds, if rounds are shorter

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


class Report:
    """Writes the tables while the run goes on. A round is added step by step and ended by `end_round`.

    That the tables cannot be written does not end a run: they are in memory, and tried again after the next round.
    """

    def __init__(self, folder: Path, resumed: Checkpoint | None = None) -> None:
        """Make `folder`; raises FileExistsError if results of another run are in it, OSError if it cannot be made.

        With `resumed`, the checkpoint in the folder, the tables there are continued after its round: what is not whole
        or came after the checkpoint goes. Raises OSError if they cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder
        self._drawing: subprocess.Popen | None = None
        self._draw_at = time.monotonic() + DRAW_EVERY
        self.round = 0 if resumed is None else resumed.round  # the last one that began
        self.round_started: float | None = None  # by time.monotonic(); None: no round is under way
        self.latest: dict[Key, Row] = {}  # the last row of each client
        self.tables = {name: Table(folder / name, columns, name == "classes.csv") for name, columns in TABLES.items()}
        for table in self.tables.values():
            if resumed is None:
                table.create()
            else:
                table.read(resumed.round)
        rounds = self.tables["rounds.csv"]
        if resumed is not None and resumed.round > max([int(row["round"]) for row in rounds.rows], default=0):
            # The server died between the training and the end of the round.
            rounds.add([{"round": resumed.round, "clients": resumed.results, "failures": resumed.failures}])
        self.durations = [number(row["seconds"]) for row in rounds.rows]  # of all rounds, in seconds; NaN: not known
        self._save()

    def start_round(self, server_round: int) -> None:
        """Start the clock of a round."""
        self.round, self.round_started = server_round, time.monotonic()
        self._round: Row = {"round": server_round}
        self._clients: dict[Key, Row] = {}  # by client
        self._classes: dict[str, Row] = {}  # by label

    def add_fit(self, client: ClientProxy, result: FitRes) -> None:
        """Add what a client that trained reports about it."""
        self._client_row(client, result.metrics).update(examples=result.num_examples)

    def add_evaluation(self, client: ClientProxy, result: EvaluateRes) -> None:
        """Add what a client that evaluated the new global model reports; `seconds` stays that of the training."""
        seconds = self._clients.get(key_of(client), {}).get("seconds", "")
        self._client_row(client, result.metrics).update(loss=result.loss, seconds=seconds)

    def add_traffic(self, traffic: Iterable[tuple[ClientProxy, int, int]]) -> None:
        """Add what was sent to clients and received from them, in bytes."""
        for client, *sizes in traffic:
            row = self._client_row(client, {})
            for column, size in zip(TRAFFIC, sizes):
                row[column] = round(row.get(column, 0) + size / 1e6, 6)

    def add_central_evaluation(self, loss: float, metrics: Mapping[str, object]) -> None:
        """Add the server's own evaluation of the new global model; metrics "of label 7" go to that class."""
        self._round.update(central_loss=loss, central_accuracy=as_number(metrics.get("accuracy")))
        for name, value in metrics.items():
            column, _, label = name.partition(" of label ")
            if label:
                self._classes.setdefault(label, {**self._round, "label": label})[column] = value

    def end_round(self, results: int, failures: int, loss: float | None, accuracy: float | None) -> None:
        """Add the round to the tables and print its line; None stands for what no client reported."""
        assert self.round_started is not None
        seconds = round(time.monotonic() - self.round_started, 3)
        self.round_started = None
        self.durations.append(seconds)
        row = {**self._round, "clients": results, "failures": failures, "loss": loss, "accuracy": accuracy}
        self.tables["rounds.csv"].add([{**row, "seconds": seconds}])
        self.tables["clients.csv"].add(self._clients[key] for key in sorted(self._clients))
        self.tables["classes.csv"].add(self._classes.values())
        self._save()
        self.latest = {**self.latest, **self._clients}
        figures = [
            f"{name.replace('_', ' ')} {row[name]:.4f}"
            for name in ("loss", "accuracy", "central_loss", "central_accuracy")
            if row.get(name) is not None
        ]
        megabytes = sum(row.get(column, 0) for row in self._clients.values() for column in TRAFFIC)
        costs = f"{megabytes:.2f} MB", f"{seconds:.1f} s"
        line = ", ".join([f"{results} results and {failures} failures", *figures, *costs])
        print(f"round {row['round']}: {line}")
        self._draw_meanwhile()

    def close(self) -> None:
        """Write what is not yet in the tables, or tell where it is."""
        if self._drawing is not None:
            self._drawing.kill()
        self._save()
        for table in self.tables.values():
            told = table.rescue()
            if told:
                print(f"server.py: {told}", file=sys.stderr)

    def draw(self) -> None:
        """Draw history.png, or tell why not."""
        try:
            rounds, clients = self.tables["rounds.csv"].rows, self.tables["clients.csv"].rows
            draw_history(self.folder / "history.png", rounds, clients)
        except Exception as error:  # the disk is full, or whatever matplotlib stumbles over: no harm to the run
            print(f"server.py: cannot draw history.png: {error}", file=sys.stderr)

    def _draw_meanwhile(self) -> None:
        """Have history.png drawn by a process of its own, which the next round does not notice."""
        now = time.monotonic()
        if now < self._draw_at or (self._drawing is not None and self._drawing.poll() is None):
            return
        self._draw_at = now + DRAW_EVERY
        # Not in a session of its own: Linux would give that as much of the processor as the server, nice or not.
        command = [sys.executable, "-m", "federation.results.chart", str(self.folder.resolve())]
        root, quiet = Path(__file__).parents[2], subprocess.DEVNULL  # `draw` tells of errors
        with contextlib.suppress(OSError):  # too many processes
            self._drawing = subprocess.Popen(command, cwd=root, stdin=quiet, stdout=quiet, stderr=quiet)

    def _client_row(self, client: ClientProxy, metrics: Mapping[str, object]) -> Row:
        row = self._clients.setdefault(key_of(client), {"round": self._round["round"]})
        for name, value in metrics.items():
            if name in TEXTS and isinstance(value, str):
                row[name] = printable(value)
            elif name not in ("round", "examples", *TEXTS, *TRAFFIC) and as_number(value) is not None:
                row[name] = value
        identity = identity_of(client)
        if identity is not None:
            row.update(cid=identity.cid, device=identity.device)
        return row

    def _save(self) -> None:
        for table in self.tables.values():
            table.save()

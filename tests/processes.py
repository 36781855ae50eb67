"""Start the real scripts as processes, with a deadline on every wait, and leave none of them behind.

For tests and benchmarks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.results.tables import read_table

ROOT = Path(__file__).parent.parent
LOOK_EVERY = 0.02  # seconds
DEADLINE = 300  # seconds: ends what hangs, on the slowest machine too; how fast something is, is not tested with it
PROMPTLY = 30  # seconds: for what is to happen at once, and could otherwise take minutes


def free_address() -> str:
    """Return an address on this machine that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Process:
    """A running script; its output, stdout and stderr together, goes to a file."""

    def __init__(self, command: list[str], log: Path, **popen_arguments: Any) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **popen_arguments.pop("env", {})}
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, **popen_arguments
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def own_lines(self) -> list[str]:
        """The output without what TensorFlow 2.21 greets with on x86_64, whatever TF_CPP_MIN_LOG_LEVEL says."""
        greetings = "absl::InitializeLog", "oneDNN custom operations", "failed call to cuInit"
        return [line for line in self.output.splitlines() if not any(words in line for words in greetings)]

    def wait_for(self, text: str, timeout: float = DEADLINE, count: int = 1) -> None:
        """Wait until the output has `text` at least `count` times."""
        deadline = time.monotonic() + timeout
        while self.output.count(text) < count:
            ended = self.popen.poll() is not None
            if self.output.count(text) >= count:  # it may have come just before the end
                return
            assert not ended, f"ended with {self.popen.returncode} before {text!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s:\n{self.output}"
            time.sleep(LOOK_EVERY)

    def exit_code(self, timeout: float = DEADLINE) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.output}") from None


class Processes:
    """Starts scripts of `project`, with their output in `folder`; kills what still runs when the block ends."""

    def __init__(self, folder: Path, project: Path = ROOT) -> None:
        self.folder = folder
        self.project = project
        self.running: list[Process] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.popen.kill()
            process.popen.wait()

    def start(self, script: str, *arguments: object, python: str | Path = sys.executable, **popen: Any) -> Process:
        log = self.folder / f"{len(self.running)}-{Path(script).stem}.log"
        popen.setdefault("cwd", self.project)
        self.running.append(Process([str(python), script, *map(str, arguments)], log, **popen))
        return self.running[-1]


class Federation(NamedTuple):
    """A run of a server and its clients that has come to its end."""

    server: Process
    clients: list[Process]
    results: Path  # the server's --results_dir
    start_seconds: float  # from the start of the first client until the server sees one
    rounds: list[dict[str, str]]  # rows of rounds.csv
    client_rows: list[dict[str, str]]  # rows of clients.csv


def federate(
    processes: Processes,
    script: str,
    server_arguments: tuple[object, ...] = (),
    client_arguments: tuple[object, ...] = (),
    num_clients: int = 2,
    python: str | Path = sys.executable,
    server_python: str | Path = sys.executable,
    timeout: float = DEADLINE,
) -> Federation:
    """Run a server and clients 0, 1, ... in `script` to their ends; each round has to have all the clients' results."""
    address, results = free_address(), processes.folder / f"results-{len(processes.running)}"
    flags = "--server_address", address, "--results_dir", results, "--min_num_clients", num_clients
    server = processes.start("server.py", *flags, *server_arguments, python=server_python)
    server.wait_for("clients connect")
    started = time.monotonic()
    clients = [
        processes.start(script, "--cid", cid, "--server_address", address, *client_arguments, python=python)
        for cid in range(num_clients)
    ]
    server.wait_for("has joined, 1 now", timeout=timeout)
    start_seconds = time.monotonic() - started
    assert server.exit_code(timeout) == 0, server.output + clients[0].output
    for client in clients:
        assert client.exit_code() == 0, client.output
        assert "the server has ended the run" in client.output
    rounds = read_table(results / "rounds.csv")
    for row in rounds:
        assert f"round {row['round']}: {num_clients} results and 0 failures" in server.output
    return Federation(server, clients, results, start_seconds, rounds, read_table(results / "clients.csv"))

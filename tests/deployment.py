"""A deployment of Flower's on this machine: a SuperLink, SuperNodes and runs of flower_app.py, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import psutil
from processes import PROMPTLY, ROOT, Process, free_address

COMMANDS = Path(sys.executable).parent  # Flower's


class Fleet:
    """A SuperLink, its nodes and runs, as processes, each with a home of its own as if on a machine of its own."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder = folder
        self.data_dir = data_dir
        self.address = free_address()
        self.homes: dict[Process, Path] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + PROMPTLY
        while members := self.members():  # what is just being started is found the next time
            kill(*members)
            assert time.monotonic() < deadline, members

    def members(self, process: Process | None = None) -> list[psutil.Process]:
        """What runs of all that this fleet has started, or of what `process` has, itself included.

        Known by the folder of Flower's that they have inherited: some outlive who has started them.
        """
        homes = [str(home) for each, home in self.homes.items() if process in (None, each)]
        members = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("FLWR_HOME") in homes:
                    members.append(each)
        return members

    def cut_off(self, process: Process) -> None:
        """Kill a process and all that it has started, as if its machine had lost its power."""
        while members := self.members(process):
            kill(*members)
        process.popen.wait()

    def start(self, command: str, *arguments: object, **environment: str) -> Process:
        """Start one of Flower's commands, or a script of the project, with a home that knows the SuperLink as fleet."""
        name = f"{len(self.homes)}-{Path(command).stem}"
        home = self.folder / name
        home.mkdir()
        (home / "backbone").symlink_to(ROOT / "backbone")  # as in the project's folder on a device
        (home / "config.toml").write_text(f'[superlink.fleet]\naddress = "{self.address}"\ninsecure = true\n')
        environment = {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "HF_ENDPOINT": "http://127.0.0.1:9",  # no internet
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
            **environment,
        }
        words = [sys.executable, command] if command.endswith(".py") else [str(COMMANDS / command)]
        cwd = home if command.startswith("flower-") else ROOT
        process = Process([*words, *map(str, arguments)], self.folder / f"{name}.log", env=environment, cwd=cwd)
        self.homes[process] = home
        return process

    def start_superlink(self) -> Process:
        host, port = self.address.split(":")
        where = "--insecure", "--host", host, "--port", port
        superlink = self.start("flower-superlink", "--disable-runtime-dependency-installation", *where)
        superlink.wait_for("Application startup complete")
        return superlink

    def start_node(self, **config: object) -> Process:
        """Start a SuperNode with this configuration; dashes in its names are underscores here."""
        config = {"data_dir": f"{self.data_dir}", **config}
        values = {name.replace("_", "-"): value for name, value in config.items()}
        written = " ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
        where = "--insecure", "--superlink", self.address, "--port", free_address().split(":")[1]
        return self.start("flower-supernode", *where, "--node-config", written)

    def start_nodes(self, *cids: int) -> dict[int, Process]:
        """Start nodes of a fleet of two, by partition, and wait until the SuperLink knows them."""
        nodes = {cid: self.start_node(partition_id=cid, num_partitions=2) for cid in cids}
        for node in nodes.values():
            node.wait_for("SuperNode ID")
        return nodes

    def run(self, flags: str) -> Process:
        """Start a run, whose output is that of the server's side."""
        return self.start("flwr", "run", ".", "fleet", "--stream", "--run-config", f"flags='{flags}'")

    def statuses(self) -> list[str]:
        """What became of the runs, the newest first."""
        listed = self.start("flwr", "ls", "fleet", "--format", "json")
        assert listed.exit_code() == 0, listed.output
        return [run["status"] for run in json.loads(listed.output)["runs"]]

    def logs(self) -> str:
        """What everybody has said, for when a test fails."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"=== {path.name}\n{path.read_text(errors='replace')[-5000:]}" for path in logs)


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, PROMPTLY)

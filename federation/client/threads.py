"""How many threads a client trains with: its share of the cores, so that clients do not block each other."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

CLIENTS = {"client_pytorch.py", "client_tf.py", "client_onnx.py", "flower-supernode"}


@dataclass
class Threads:
    """The number of threads that the user chose or, if that is None, this client's share of the cores.

    With more threads than cores, PyTorch's threads wait for each other hundreds of times in a step, each time until all
    of them have had a core.
    """

    number: int | None = None
    set_threads: Callable[[int], object] | None = field(default=None, compare=False)
    most: int = field(default=1, compare=False)
    current: int = field(default=0, compare=False)

    def share_cores(self, set_threads: Callable[[int], object], most: int) -> None:
        """Call `set_threads` with the number; a share is at most `most`. `adapt` repeats this before each fit."""
        self.set_threads, self.most = set_threads, most
        self.adapt()

    def adapt(self) -> None:
        """Take this client's share of the cores: other clients may have come or gone."""
        if self.set_threads is None or self.current == self.number:
            return
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads, reason = (self.number, "--threads") if self.number else share_of(cores, self.most)
        if threads != self.current:
            with contextlib.suppress(RuntimeError):  # TensorFlow's number is fixed after its first computation
                self.set_threads(threads)
                self.current = threads
                print(f"training on {threads} of {cores} cores ({reason})")


def share_of(cores: int, most: int) -> tuple[int, str]:
    """A client's share of this many cores, at least 1 and at most `most`, and the reason for it."""
    try:
        clients = count_clients()
    except Exception as error:  # whatever a system without psutil or a readable list of processes raises
        return 1, f"cannot count the clients on this machine: {error}"
    return max(1, min(most, cores // clients)), f"clients on this machine: {clients}"


def count_clients() -> int:
    """The number of clients on this machine, at least 1; processes that this user may not see do not count."""
    import psutil

    own = Path(sys.argv[0]).name  # perhaps your own copy of a script
    names = CLIENTS | {own} if own.endswith(".py") else CLIENTS
    commands = [process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"])]
    return max(1, sum(_is_client(command, names) for command in commands))


def _is_client(command: list[str], names: set[str]) -> bool:
    """Whether a command is Python running one of these scripts; an editor may have its name as an argument, too."""
    is_python = "python" in Path(command[0]).name.lower()
    return is_python and not names.isdisjoint(Path(word).name for word in command[1:])

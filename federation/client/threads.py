"""How many threads a client trains with: its share of the cores, so that clients on one machine do not get stuck."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Threads:
    """The number of threads that was asked for or, if that is None, this client's share of the cores.

    With more threads than cores, those of PyTorch wait for each other hundreds of times in a step, each time until the
    system has given a core to all of them.
    """

    number: int | None = None
    set_threads: Callable[[int], object] | None = field(default=None, compare=False)
    most: int = field(default=1, compare=False)
    current: int = field(default=0, compare=False)

    def share_cores(self, set_threads: Callable[[int], object], most: int) -> None:
        """Call `set_threads` with the number, a share being `most` at most; before each fit, `adapt` does it again."""
        self.set_threads, self.most = set_threads, most
        self.adapt()

    def adapt(self) -> None:
        """Take this client's share of the cores: other clients may have come or gone."""
        if self.set_threads is None:
            return
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = self.number or max(1, min(self.most, cores // count_clients()))
        if threads != self.current:
            with contextlib.suppress(RuntimeError):  # TensorFlow: its number is final once it has computed anything
                self.set_threads(threads)
                self.current = threads
                print(f"training on {threads} of {cores} cores")


def count_clients() -> int:
    """Number of clients on this machine, at least 1; processes that this user may not see do not count."""
    import psutil

    commands = [process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"])]
    return max(1, sum(map(_is_client, commands)))


def _is_client(command: list[str]) -> bool:
    """Whether Python runs a client here, perhaps a copy; an editor or a shell may have its name among its words."""
    names = [Path(word) for word in command[1:]]
    is_named = any(name.match("client*.py") or name.name == "flower-supernode" for name in names)
    return is_named and "python" in Path(command[0]).name.lower()

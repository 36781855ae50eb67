"""How many threads a client trains with: as many as help on this device, and no more than its share of the cores."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import secrets
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Callable

from federation.client.about import describe
from federation.client.flags import ClientSettings
from federation.data.hub import SOURCES
from federation.data.partition_file import Examples
from federation.files import replaced

import numpy as np
from flwr.client import NumPyClient
from flwr.common import Scalar

TRIAL_IMAGES = 128
TRIAL_CONFIG: dict[str, Scalar] = {"epochs": 1, "batch_size": 16}
TRIAL_TIME = 0.5  # seconds
TRIAL_TIMEOUT = 180  # seconds; TensorFlow on a small board takes a minute to prepare a model
WORTHWHILE = 0.7  # twice the threads have to bring the time down to this part; 0.5 would be perfect
HERE = "embedded-devices-client-"  # begins the name of a socket that each client has, for the others to count

MakeClient = Callable[[str, Examples, Examples], NumPyClient]  # from a data set's name, images to train and to validate


class SharedCores:
    """The cores of this machine, of which each client on it has its share.

    More threads than cores would do great harm: those of PyTorch wait for each other hundreds of times in a step, each
    time until the system has given a core to all of them. Two clients with two threads each on two cores took over 40
    times as long for a fit as with one thread.
    """

    def __init__(self) -> None:
        self.set_threads: Callable[[int], object] | None = None
        self.most = self.threads = 1
        self.socket: socket.socket | None = None

    def count_me(self) -> None:
        """Let the other clients know of this one, as long as its process lives."""
        if sys.platform.startswith("linux") and self.socket is None:  # elsewhere, nobody has several threads
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.bind(f"\0{HERE}{secrets.token_hex(8)}")  # a name without a file, gone with the process

    @property
    def total(self) -> int:
        """How many cores this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def clients(self) -> int:
        """How many clients there are on this machine."""
        try:
            return max(1, Path("/proc/net/unix").read_text().count(f"@{HERE}"))
        except OSError:
            return 1

    @property
    def share(self) -> int:
        """How many threads each of them may have."""
        return max(1, self.total // self.clients)

    def before_fit(self) -> None:
        """Take as many threads as help and the share allows: other clients may have come or gone."""
        if self.set_threads is None:  # the number was asked for
            return
        threads = min(self.most, self.share)
        if threads != self.threads:
            with contextlib.suppress(RuntimeError):  # TensorFlow: its number is final once it has computed anything
                self.set_threads(threads)
                self.threads = threads
                print(f"training on {threads} of {self.total} cores (clients on this machine: {self.clients})")


shared_cores = SharedCores()


def choose_threads(settings: ClientSettings, set_threads: Callable[[int], object], make_client: MakeClient) -> int:
    """Return `settings.threads`, or else the number of threads with which `fit` is fast on this device.

    More threads are taken only if they make it clearly faster, and no more than this client's share of the cores; from
    then on, `shared_cores` adapts them before each fit. What was measured on all cores is kept with the data for the
    next start; the file is named in what is printed.
    """
    shared_cores.count_me()
    cores, share = shared_cores.total, shared_cores.share
    path = settings.partition.data_dir / settings.dataset / f"threads_{Path(inspect.getfile(make_client)).stem}.json"
    device = f"{describe()}, {cores} cores"  # the file may have come from another one, with the data

    def seconds(threads: int) -> float:
        return _in_child(lambda: _trial(threads, settings.dataset, set_threads, make_client))

    threads, origin = settings.threads, "--threads"
    if threads is None:
        threads, origin = _read(path, device), f"measured before, kept in {path}"
    if threads is None:
        threads = _fewest_worthwhile(seconds, share)
        is_kept = threads and share == cores and _write(path, device, threads)
        origin = f"measured, kept in {path}" if is_kept else "measured"
    if threads is None:
        threads, origin = 1, "more could not be tried"
    if settings.threads is None:
        shared_cores.most, shared_cores.set_threads = threads, set_threads
        threads = shared_cores.threads = min(threads, share)
        origin += "" if share == cores else f"; clients on this machine: {shared_cores.clients}"
    print(f"training on {threads} of {cores} cores ({origin})")
    return threads


def _read(path: Path, device: str) -> int | None:
    """Return the number kept in a file, if it was measured on this device."""
    try:
        kept = json.loads(path.read_text())
        return int(kept["threads"]) if kept["device"] == device else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, device: str, threads: int) -> bool:
    """Keep the number in a file; return whether that was possible: partitions may be in a read-only folder."""
    try:
        with replaced(path) as file:
            file.write(json.dumps({"device": device, "threads": threads}).encode())
    except OSError:
        return False
    return True


def _fewest_worthwhile(seconds: Callable[[int], float], cores: int) -> int | None:
    """Double the threads as long as it pays; `seconds(threads)` tells how long a fit takes. None if that failed."""
    if cores == 1:
        return 1
    threads, best = 1, seconds(1)
    while threads * 2 <= cores and best < math.inf:
        doubled = seconds(threads * 2)
        if doubled > WORTHWHILE * best:
            break
        threads, best = threads * 2, doubled
    return threads if best < math.inf else None


def _trial(threads: int, dataset: str, set_threads: Callable[[int], object], make_client: MakeClient) -> float:
    """Return the shortest of several times, in case that others keep the device busy; the first fit does not count."""
    set_threads(threads)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(TRIAL_IMAGES, *SOURCES[dataset].image_shape), dtype=np.uint8)
    examples = Examples(images, random.integers(0, 10, size=TRIAL_IMAGES))
    client = make_client(dataset, examples, examples)
    parameters = [array.copy() for array in client.get_parameters({})]
    client.fit(parameters, TRIAL_CONFIG)
    times: list[float] = []
    while sum(times) < TRIAL_TIME:
        started = time.perf_counter()
        client.fit(parameters, TRIAL_CONFIG)
        times.append(time.perf_counter() - started)
    return min(times)


def _in_child(measure: Callable[[], float]) -> float:
    """Call `measure` in a process forked from this one; return infinity if it fails.

    There, because TensorFlow's number of threads is final once it has computed anything, and because what a trial takes
    of memory goes back to the system. macOS and Windows have no fork that is safe here: infinity, so one thread.
    """
    if not sys.platform.startswith("linux"):
        return math.inf
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(silence, stream)
            os.write(writer, str(measure()).encode())
        except Exception as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:1000])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answered = select.select([reader], [], [], TRIAL_TIMEOUT)[0]
        answer = os.read(reader, 1000).decode(errors="replace") if answered else f"no end in {TRIAL_TIMEOUT} s"
        return float(answer)
    except ValueError:
        print(f"the trial of threads failed ({answer or 'it was killed'})")
        return math.inf
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

"""How many threads a client trains with: as many as help on this device, found out by trying."""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

from federation.device import describe
from federation.files import replaced
from federation.partitions import Examples

TRIAL_IMAGES = 128
TRIAL_TIME = 0.5  # seconds
TRIAL_TIMEOUT = 180  # seconds; TensorFlow on a small board takes a minute to prepare a model
WORTHWHILE = 0.7  # twice the threads have to bring the time down to this part; 0.5 would be perfect


def choose_threads(
    args: argparse.Namespace,
    set_threads: Callable[[int], object],
    build_model: Callable[[str], Any],
    train: Callable[..., object],
    examples: Examples,
) -> int:
    """Return `args.threads`, or else the number of threads with which `train` is fast on this device.

    More threads are taken only if they make it clearly faster: the rest of the cores may have other clients to serve.
    The number is kept with the data for the next start; the file is named in what is printed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    path = args.data_dir / args.dataset / f"threads_{Path(sys.argv[0]).stem}.json"
    device = f"{describe()}, {cores} cores"  # the file may have come from another one, with the data
    threads, origin = args.threads, "--threads"
    if threads is None:
        threads, origin = _read(path, device), f"measured before, kept in {path}"
    if threads is None:

        def prepare(threads: int) -> Callable[[], object]:
            set_threads(threads)
            model = build_model(args.dataset)
            few = Examples(examples.images[:TRIAL_IMAGES], examples.labels[:TRIAL_IMAGES])
            return lambda: train(model, few, learning_rate=1e-3, epochs=1, batch_size=16)

        threads = _fewest_worthwhile(lambda threads: _in_child(lambda: _seconds(prepare(threads))), cores)
        origin = f"measured, kept in {path}"
        try:
            with replaced(path) as file:
                file.write(json.dumps({"device": device, "threads": threads}).encode())
        except OSError:  # partitions may be in a folder that cannot be written
            origin = "measured"
    print(f"training on {threads} of {cores} cores ({origin})", flush=True)
    return threads


def _read(path: Path, device: str) -> int | None:
    """Return the number kept in a file, if it was measured on this device."""
    try:
        kept = json.loads(path.read_text())
        return int(kept["threads"]) if kept["device"] == device else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fewest_worthwhile(seconds: Callable[[int], float], cores: int) -> int:
    """Double the threads as long as it pays; `seconds(threads)` tells how long a training takes."""
    if cores == 1:
        return 1
    threads, best = 1, seconds(1)
    while threads * 2 <= cores and best < math.inf:
        doubled = seconds(threads * 2)
        if doubled > WORTHWHILE * best:
            break
        threads, best = threads * 2, doubled
    return threads


def _seconds(train: Callable[[], object]) -> float:
    """Return the shortest of several times, in case that others keep the device busy; the first call does not count."""
    train()
    times: list[float] = []
    while sum(times) < TRIAL_TIME:
        started = time.perf_counter()
        train()
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
            os.write(writer, repr(measure()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if select.select([reader], [], [], TRIAL_TIMEOUT)[0]:
            return float(os.read(reader, 100) or "inf")
        return math.inf
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

"""Flower's simulation on this machine, or on the Ray cluster that it belongs to."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Callable, NoReturn

import ray
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

NUM_NODES = 8 * (os.cpu_count() or 1)


def simulate(rounds: Callable[[Grid], None], client_app: ClientApp, gpu_share: float) -> NoReturn:
    """Call `rounds` with the grid of a simulation, in which a client that is at work takes one core, and `gpu_share`.

    Ends the process: with exit code 0 if `rounds` came off, 1 if it raised an error, 130 at Ctrl-C, 143 at SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    came_off = False
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, _context: Context) -> None:
        nonlocal came_off
        rounds(grid)
        came_off = True

    backend: dict[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": gpu_share}}
    try:
        _start_ray(gpu_share)
        run_simulation(server_app, client_app, NUM_NODES, backend_config=backend)
        exit_code = 0 if came_off else 1
    except _Stopped as stopped:  # Ray's processes have ended by now; what counts is on disk after each round
        exit_code = 128 + stopped.number
        print(f"flower_app.py: stopped by {signal.Signals(stopped.number).name}", file=sys.stderr)
    except RuntimeError as error:
        exit_code = 1
        print(f"flower_app.py: {error}", file=sys.stderr)
        ray.shutdown()
    os._exit(exit_code)  # not by sys.exit: threads still wait for clients


def _start_ray(gpu_share: float) -> None:
    """Start Ray before Flower does, whose errors are tracebacks; raises RuntimeError if that is in vain."""
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # of Ray's processes
    try:
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=environment)
    except OSError as error:  # such as a TMPDIR that makes the name of a socket too long
        raise RuntimeError(f"cannot start Ray: {error}") from error
    if gpu_share > ray.cluster_resources().get("GPU", 0):
        raise RuntimeError(
            f"--gpu_share {gpu_share:g} needs a GPU, and Ray finds none: leave the flag out to use the CPU"
        )


class _Stopped(BaseException):
    """A signal has come."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # once is enough
    raise _Stopped(number)

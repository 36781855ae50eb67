"""Flower's simulation on this machine, or on the Ray cluster that it belongs to."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Callable, NoReturn

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

AT_ONCE = 16 * (os.cpu_count() or 1)  # messages under way: with fewer, cores wait; with more, Flower searches longer


def simulate(rounds: Callable[[Grid], None], client_app: ClientApp, num_clients: int, gpu_share: float) -> NoReturn:
    """Call `rounds` with the grid of `num_clients` simulated clients, each of which takes one core, and `gpu_share`.

    Ends the process: with exit code 0 if `rounds` came off, 1 if it raised an error, 130 at Ctrl-C, 143 at SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    came_off = False
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, _context: Context) -> None:
        nonlocal came_off
        rounds(grid)
        came_off = True

    backend: dict[str, dict[str, Any]] = {
        "client_resources": {"num_cpus": 1, "num_gpus": gpu_share},
        "init_args": {"log_to_driver": False, "include_dashboard": False},
    }
    try:
        run_simulation(server_app, client_app, num_clients, backend_config=backend)
    except RuntimeError as error:
        print(f"flower_app.py: {error}", file=sys.stderr)
    os._exit(0 if came_off else 1)


def _leave(number: int, _frame: object) -> None:
    """End this process at once, as what counts is on disk after each round; Ray's processes end with it."""
    os.write(2, f"flower_app.py: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)

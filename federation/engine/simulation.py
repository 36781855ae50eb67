"""Flower's simulation on this machine, or on the Ray cluster that it belongs to."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, NoReturn

from federation.flags import Failure

import ray
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

NUM_NODES = 8 * (os.cpu_count() or 1)


def simulate(rounds: Callable[[Grid], None], client_app: ClientApp, gpu_share: float) -> NoReturn:
    """Call `rounds` with the grid of a simulation, in which a working client takes one core and `gpu_share` of a GPU.

    Ends the process: with exit code 0 if `rounds` succeeded, 1 if it raised an error, 130 at Ctrl-C and SIGTERM.
    """
    exit_code = 1
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, _context: Context) -> None:
        nonlocal exit_code
        rounds(grid)
        exit_code = 0

    backend: dict[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": gpu_share}}
    try:
        _start_ray(gpu_share)
        run_simulation(server_app, client_app, NUM_NODES, backend_config=backend)
    except (KeyboardInterrupt, SystemExit):  # Ray raises the latter at SIGTERM; its processes have ended by now
        exit_code = 130
        print("flower_app.py: stopped", file=sys.stderr)
    except (Failure, OSError, RuntimeError) as error:
        print(f"flower_app.py: {error}", file=sys.stderr)
        ray.shutdown()
    os._exit(exit_code)  # not by sys.exit: threads still wait for clients


def _start_ray(gpu_share: float) -> None:
    """Start Ray before Flower, whose errors would be tracebacks; raises Failure without a GPU, or Ray's OSError."""
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # of Ray's processes
    ray.init(log_to_driver=False, include_dashboard=False, runtime_env=environment)
    if gpu_share > ray.cluster_resources().get("GPU", 0):
        raise Failure(f"--gpu_share {gpu_share:g} needs a GPU, but Ray finds none: leave the flag out to use the CPU")

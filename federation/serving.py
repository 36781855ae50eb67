"""Start Flower's server, and end it with an exit code that tells whether every round was committed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback

from federation import MAX_MESSAGE_BYTES
from federation.arguments import split_address
from federation.report import draw_history
from federation.strategy import DeviceFedAvg

from flwr.server import Server, ServerConfig, SimpleClientManager, start_server
from flwr.server.client_proxy import ClientProxy
from flwr.server.history import History

STOP_SIGNALS = signal.SIGINT, signal.SIGTERM
MAX_CLIENTS = 1000  # as many connections as Flower's gRPC server can hold


def serve(strategy: DeviceFedAvg, server_address: str, num_rounds: int) -> None:
    """Run `num_rounds` rounds of federated learning, then end the process.

    The exit code is 0 if all of them were committed, that is if after each one a new global model was on
    disk, and 1 if not.
    """
    print(f"clients connect with --server_address={' or '.join(reachable_addresses(server_address))}", flush=True)
    start_server(
        server_address=server_address,
        server=_Server(strategy),
        config=ServerConfig(num_rounds=num_rounds),
        grpc_max_message_length=MAX_MESSAGE_BYTES,
    )
    sys.exit(_summarise(strategy, num_rounds))


def reachable_addresses(server_address: str) -> list[str]:
    """Return the addresses under which clients reach a server that listens on `server_address`."""
    host, port = split_address(server_address)
    if host not in ("0.0.0.0", "::"):
        return [server_address]
    addresses = [f"127.0.0.1:{port} (on this machine)"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))  # sends nothing; only asks which of our addresses leads outside
            addresses.insert(0, f"{probe.getsockname()[0]}:{port}")
        except OSError:  # no network: clients on this machine only
            pass
    return addresses


class _Server(Server):
    """Flower's server; lets all sampled clients train at the same time and cannot hang on an error."""

    def __init__(self, strategy: DeviceFedAvg) -> None:
        super().__init__(client_manager=_ClientManager(), strategy=strategy)
        self.set_max_workers(MAX_CLIENTS)  # Flower's default: processor cores + 4

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run the rounds; an error or a signal to stop ends the process at once.

        Left to itself it would hang: Python waits for its worker threads, which wait for their clients.
        """

        def stop(_number: int, _frame: object) -> None:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # once is enough
            os._exit(_summarise(self.strategy, num_rounds))

        for number in STOP_SIGNALS:
            signal.signal(number, stop)
        try:
            return super().fit(num_rounds, timeout)
        except Exception:
            traceback.print_exc()
            try:
                _summarise(self.strategy, num_rounds)
            finally:
                os._exit(1)


class _ClientManager(SimpleClientManager):
    """Flower's registry of connected clients; says who comes."""

    def register(self, client: ClientProxy) -> bool:
        """Add a client."""
        registered = super().register(client)
        print(f"a client has connected, {len(self)} now", flush=True)
        return registered


def _summarise(strategy: DeviceFedAvg, num_rounds: int) -> int:
    """Draw the history, print where the results are, and return the exit code."""
    draw_history(strategy.report.folder)
    print(f"{strategy.committed} of {num_rounds} rounds done, results in {strategy.report.folder}", flush=True)
    return 0 if strategy.committed == num_rounds else 1

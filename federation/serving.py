"""Start Flower's server, and end it with an exit code that tells whether every round was committed."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

from federation import MAX_MESSAGE_BYTES
from federation.arguments import is_loopback, split_address
from federation.keepalive import watch_connections
from federation.report import Report, draw_history
from federation.rounds import STOP_SIGNALS, DeviceServer, NoClients

from flwr.server import ServerConfig, start_server
from flwr.server.strategy import Strategy

try:
    import resource
except ImportError:  # Windows
    resource = None

DRAWING_TIMEOUT = 3  # seconds


def serve(strategy: Strategy, args: argparse.Namespace) -> NoReturn:
    """Run the rounds that are missing of `args.rounds`, then end the process.

    The exit code is 0 if all rounds were committed, that is if after each one a new global model was on disk, and 1
    if not. `args.start` is what `checkpoint.load` returned, if `args.resume` is given.
    """
    try:
        report = Report(args.results_dir, last=args.start[1] if args.resume else None)
    except OSError as error:
        sys.exit(f"server.py: cannot write results: {error}")
    server = DeviceServer(strategy, args, report)
    if args.resume:
        print(f"going on after round {server.about['round']}", flush=True)
    print(f"clients connect with --server_address={' or '.join(reachable_addresses(args.server_address))}", flush=True)
    if args.certificates is None and not is_loopback(args.server_address):
        print("not encrypted: others on the network can read the models (--certificates changes that)", flush=True)
    watch_connections(split_address(args.server_address)[1])
    if resource is not None:  # each client is an open file, and the usual limit is 1024
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        start_server(
            server_address=args.server_address,
            server=server,
            config=ServerConfig(num_rounds=args.rounds),
            grpc_max_message_length=MAX_MESSAGE_BYTES,
            certificates=args.certificates,
        )
    except KeyboardInterrupt:
        print("server.py: stopped", file=sys.stderr, flush=True)
    except (NoClients, OSError, SystemExit) as error:
        print(f"server.py: {error}", file=sys.stderr, flush=True)
    except Exception:
        traceback.print_exc()
    _leave(server)


def _leave(server: DeviceServer) -> NoReturn:
    """Tell how far the run has come and end the process at once: Python would wait for threads that wait for clients.

    Clients that have not heard of the end lose the connection and wait for the next server.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # once is enough
    committed, num_rounds = server.about["committed"], server.args.rounds
    drawing = threading.Thread(target=_draw, args=(server,), daemon=True)
    drawing.start()
    # The first drawing on a new machine takes long. Who has stopped the server does not want to wait for it.
    drawing.join(None if committed >= num_rounds else DRAWING_TIMEOUT)
    print(f"{committed} of {num_rounds} rounds done, results in {server.report.folder}", flush=True)
    sys.stderr.flush()  # os._exit does not, and before Python 3.9 a traceback may still be waiting there
    os._exit(0 if committed >= num_rounds else 1)


def _draw(server: DeviceServer) -> None:
    try:
        draw_history(server.report.folder)
    except OSError as error:
        print(f"server.py: cannot draw history.png: {error}", file=sys.stderr, flush=True)


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

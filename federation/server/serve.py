"""Start Flower's server, and end it with an exit code that tells whether every round was committed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from importlib.util import find_spec
from typing import ContextManager, NoReturn

from federation.flags import Failure, dataset_name
from federation.results.live_table import watched
from federation.server.flags import ServerSettings
from federation.server.rounds import STOP_SIGNALS, DeviceServer
from federation.wire import MAX_MESSAGE_BYTES
from federation.wire.addresses import reachable_addresses
from federation.wire.discovery import LONGEST_NAME, Announcement, announced
from federation.wire.handshake import printable
from federation.wire.keepalive import watch_connections
from federation.wire.tls import warn_if_readable

from flwr.server import ServerConfig, start_server
from flwr.server.strategy import Strategy

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

DRAWING_TIMEOUT = 3  # seconds
SILENCE = 65  # seconds until a silent client is lost


def serve(strategy: Strategy, settings: ServerSettings) -> NoReturn:
    """Run the remaining rounds of `settings.run.num_rounds`, then end the process.

    The exit code is 0 if all rounds were committed, which means that a new global model was on disk after each one,
    and 1 if not.
    """
    run = settings.run
    server = DeviceServer(strategy, run, settings.token, classes=settings.classes)
    address = settings.server_address
    print(f"clients connect with --server_address={' or '.join(map(str, reachable_addresses(address)))}")
    warn_if_readable(address, settings.certificates is not None, "--certificates")
    watch_connections(SILENCE)
    _allow_many_connections()
    try:
        table = watched(server.report, server.clients.activities, run.num_rounds, run.min_num_clients, settings.plain)
        with _announcement(server, settings), table:
            start_server(
                server_address=str(address),
                server=server,
                config=ServerConfig(num_rounds=run.num_rounds),
                grpc_max_message_length=MAX_MESSAGE_BYTES,
                certificates=settings.certificates,
            )
    except KeyboardInterrupt:
        print("server.py: stopped", file=sys.stderr)
    except (Failure, OSError, SystemExit) as error:  # SystemExit: Flower cannot start
        print(f"server.py: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    _leave(server)


def _announcement(server: DeviceServer, settings: ServerSettings) -> ContextManager[None]:
    """Context in which the server is announced on the network, unless that is switched off or impossible."""
    address, run = settings.server_address, settings.run
    if not settings.announce or address.is_loopback:
        return contextlib.nullcontext()
    if find_spec("zeroconf") is None:
        print("not announced on the network: the package zeroconf is not installed")
        return contextlib.nullcontext()

    def describe() -> Announcement:
        member = server.clients.member
        tested = dataset_name(run.flags["mnist"]) if run.flags["evaluate_with"] else ""
        return Announcement(
            run=printable(run.results_dir.resolve().name)[:LONGEST_NAME],
            addresses=tuple(found for found in reachable_addresses(address) if not found.is_loopback),
            dataset=member.dataset if member else "photos" if settings.classes else tested,
            encrypted=settings.certificates is not None,
        ).signed(settings.token)

    print("announced on the network: clients there need no --server_address (--no_announce changes that)")
    return announced(describe)


def _allow_many_connections() -> None:
    """Raise the limit of open files, usually 1024, as far as it goes: each client needs one."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _leave(server: DeviceServer) -> NoReturn:
    """Print how far the run got and end the process at once: Python would wait for threads that wait for clients.

    Clients that have not received the goodbye lose the connection and wait for the next server.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # one is enough
    committed, num_rounds = server.checkpoint.committed, server.settings.num_rounds
    server.report.save()
    # The first drawing on a new machine takes long. A user who stops the server does not want to wait for it.
    server.report.draw(None if committed >= num_rounds else DRAWING_TIMEOUT)
    with contextlib.suppress(OSError):  # the reader of the output is gone
        print(f"{committed} of {num_rounds} rounds done, results in {server.report.folder}")
    os._exit(0 if committed >= num_rounds else 1)

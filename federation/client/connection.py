"""Connect a client to the server, now or as soon as it is up, and stay until the server ends the run."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import sys
import time

from federation.client.about import identify
from federation.client.flags import ClientSettings
from federation.client.power import Meter
from federation.client.search import Search
from federation.client.stream import ConnectionLost, answer_server
from federation.client.wrapper import ClientWrapper
from federation.flags import Failure
from federation.wire.handshake import Refused
from federation.wire.keepalive import watch_connections
from federation.wire.probe import probe
from federation.wire.tls import FOUND, warn_if_readable

from flwr.client import NumPyClient

LONGEST_PAUSE = 20  # seconds between two attempts to reach the server
SILENCE = 45  # seconds until a silent server is lost: fewer than its own, to be back before it gives up this client


def stay_connected(client: NumPyClient, settings: ClientSettings) -> None:
    """Take part in the run of the server at `settings.server_address`, or of one found on the network.

    Waits for a server that is not up yet, reconnects when the connection is lost, and returns when the server ends
    the run. Ends the process with exit code 1 if the server refuses this client, or if it could not be
    reached for `settings.retry_for` seconds; with 2 if two servers are found; with 130 at Ctrl-C and 143 at SIGTERM.
    """
    _exit_at_signals()
    identity = identify(client, settings.partitioning, settings.cid, secrets.token_hex(8), keeps_model=True)
    wrapper = ClientWrapper(client, identity, settings.token, Meter(settings.plug), settings.threads)
    watch_connections(SILENCE)
    if settings.server_address:
        warn_if_readable(settings.server_address, settings.root_certificate is not None, "--root_certificate")
    try:
        _connect_until_the_end(wrapper, settings)
    except Refused as refused:
        sys.exit(f"{refused}")
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    print("the server has ended the run")


def _connect_until_the_end(wrapper: ClientWrapper, settings: ClientSettings) -> None:
    """Return once the server has ended the run; raises Refused if retrying is pointless."""
    root_certificate, name = settings.root_certificate, None if settings.server_address else FOUND
    attempts = _Attempts(settings)
    search = Search(settings, lambda line: attempts.tell(line))
    while True:
        address = settings.server_address or search.look()
        if address is None:
            attempts.remaining()
            continue
        try:
            probe(address, root_certificate, name)
            attempts.tell(f"connecting to {address}")
            answer_server(address, root_certificate, name, wrapper.answer)
            return
        except ConnectionLost as lost:
            if lost.was_asked:  # the server was there
                attempts = _Attempts(settings)
            attempts.tell(f"lost the server at {address} ({lost}): trying again")
        except OSError as error:
            attempts.tell(f"no server at {address} yet ({error.strerror or error}): waiting for it")
        except Refused as refused:
            if not refused.again:
                raise
            attempts.tell(f"{refused}: trying again")
        attempts.wait()


class _Attempts:
    """Attempts to reach the server: prints about them, pauses longer and longer between them, and gives up in time."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.told: set[str] = set()
        self.pause = 1.0  # seconds
        self.give_up_at = time.monotonic() + settings.retry_for

    def tell(self, line: str) -> None:
        """Print a line, once."""
        if line not in self.told:
            print(line)
            self.told.add(line)

    def remaining(self) -> float:
        """The seconds until it is time to give up; raises Refused if it is."""
        remaining = self.give_up_at - time.monotonic()
        if remaining <= 0:
            server = self.settings.server_address or "a server"
            raise Refused(f"no connection to {server} for {self.settings.retry_for:g} s: giving up")
        return remaining

    def wait(self) -> None:
        """Wait before the next attempt; raises Refused if it is time to give up."""
        time.sleep(min(random.uniform(self.pause / 2, self.pause), self.remaining()))
        self.pause = min(2 * self.pause, LONGEST_PAUSE)


def _exit_at_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process at once: nothing here has to be saved."""

    def leave(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):  # not print, which may just have been interrupted
            below = "\n" if os.isatty(1) else ""  # the cursor may be in the middle of a line
            os.write(1, f"{below}stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)

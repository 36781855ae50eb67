"""Find the server for a client that was started without --server_address."""

from __future__ import annotations

import time
from typing import Callable

from federation.client.flags import ClientSettings
from federation.flags import Failure
from federation.wire.addresses import Address
from federation.wire.discovery import Announcement, hear
from federation.wire.handshake import Refused
from federation.wire.probe import probe
from federation.wire.tls import FOUND, warn_if_readable

HERE = Address("127.0.0.1", 8080)
LISTEN = 8  # seconds; then it asks again, because the network may have come up late
ADVISE_AFTER = 30  # seconds
ADVICE = (
    "no server found yet: is it running, on the same network? Guest Wi-Fi and Docker block announcements: "
    "use --server_address with the address that server.py printed"
)


class Search:
    """Looks for a server on this machine and on its network; `tell` prints a line, once.

    A server that this client was connected to before is preferred.
    """

    def __init__(self, settings: ClientSettings, tell: Callable[[str], None]) -> None:
        self.settings = settings
        self.tell = tell
        self.last: Announcement | None = None  # that this client has connected to
        self.advise_at = time.monotonic() + ADVISE_AFTER

    def look(self) -> Address | None:
        """Return the address of the only server that fits; None after a few seconds. Raises Failure if two fit."""
        try:
            self._probe(HERE)
            return HERE
        except OSError:
            pass
        except Refused as refused:
            self.tell(f"{refused}")
        self.tell(f"no server on port {HERE.port} of this machine: looking on the network")
        found = {address: server for server in self._hear() for address in self._usable(server)}
        if self.last and len(found) > 1:
            found = {address: server for address, server in found.items() if server.run == self.last.run} or found
        if len(found) > 1:
            servers = " and ".join(f"{server.run!r} at {address}" for address, server in found.items())
            raise Failure(f"found {len(found)} servers, {servers}: choose one with --server_address", exit_code=2)
        if not found:
            if time.monotonic() > self.advise_at:
                self.tell(ADVICE)
            return None
        ((address, server),) = found.items()
        if server != self.last:
            print(f"found server {server.run!r}")
            warn_if_readable(address, server.encrypted, "--root_certificate")
        self.last, self.advise_at = server, time.monotonic() + ADVISE_AFTER
        return address

    def _hear(self) -> list[Announcement]:
        try:
            return hear(LISTEN)
        except ImportError:
            self.tell("cannot look on the network: install the package zeroconf, or use --server_address")
            time.sleep(1)
            return []

    def _usable(self, server: Announcement) -> list[Address]:
        """The first address that reaches a server; none, after printing the reason, if the server does not fit."""
        misfit = server.misfit(self.settings.dataset, self.settings.root_certificate is not None, self.settings.token)
        if misfit:
            self.tell(f"found {server}, but {misfit}")
            return []
        errors = []
        for address in server.addresses:
            try:
                self._probe(address)
                return [address]
            except OSError as error:
                errors.append(f"{address} cannot be reached ({error.strerror or error})")
            except Refused as refused:
                errors.append(f"{refused}")
        self.tell(f"found {server}, but {'; '.join(errors)}")
        return []

    def _probe(self, address: Address) -> None:
        probe(address, self.settings.root_certificate, FOUND)

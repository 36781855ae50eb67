"""Find the server without its address: it announces itself on the local network (multicast DNS, RFC 6762 and 6763).

Anybody on the network can send an announcement. So a server with a token signs its announcements, and clients with a
token trust no others. With TLS, the server's certificate decides.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import hmac
import json
import queue
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable, Iterator, Mapping, NamedTuple

from federation.wire.addresses import Address, server_address
from federation.wire.handshake import printable

if TYPE_CHECKING:
    from zeroconf import Zeroconf  # optional, and imported only when it is needed

SERVICE = "_flower-federation._tcp.local."
CHECK_EVERY = 2  # seconds; a laptop can move to another network while the server runs
GATHER = 1.0  # seconds after the first announcement to wait for others
REPLY_TIMEOUT = 3000  # milliseconds
LONGEST_NAME = 60  # characters of a run's name: an entry of an announcement has at most 255 bytes


class Announcement(NamedTuple):
    """What a server says about itself."""

    run: str  # the name of the run
    addresses: tuple[Address, ...]  # the likeliest first
    dataset: str  # of its clients; empty: not known yet
    encrypted: bool
    signature: str = ""  # see `signed`; empty: without a token

    def __str__(self) -> str:
        return f"server {self.run!r} at {' or '.join(map(str, self.addresses))}"

    def signed(self, token: bytes | None) -> Announcement:
        """The same with its HMAC-SHA256 under `token`, which covers the addresses: it is invalid with others."""
        if token is None:
            return self._replace(signature="")
        message = "announcement " + json.dumps(self[:-1])
        return self._replace(signature=hmac.new(token, message.encode(), hashlib.sha256).hexdigest())

    def misfit(self, dataset: str, encrypted: bool, token: bytes | None) -> str | None:
        """Why a client with this data set and token, which encrypts or not, should not connect; None if it should."""
        if self.encrypted and not encrypted:
            return "it requires TLS: copy its ca.crt here and add --root_certificate ca.crt"
        if encrypted and not self.encrypted:
            return "it does not encrypt: start it with --certificates"
        if token is None and self.signature:
            return "it requires a token: add --token_file"
        if not hmac.compare_digest(self.signed(token).signature.encode(), self.signature.encode()):
            return "it does not have this client's token (--token_file)"
        if self.dataset not in ("", dataset):
            return f"its clients have {self.dataset}, this one has {dataset}"
        return None

    def write(self) -> dict[str, str]:
        """Entries for multicast DNS, from which `read` makes the same announcement."""
        addresses = " ".join(map(str, self.addresses))
        return {**self._asdict(), "addresses": addresses, "encrypted": "yes" if self.encrypted else "no"}

    @classmethod
    def read(cls, entries: Mapping[bytes, bytes | None]) -> Announcement | None:
        """The announcement in these entries, which anybody may have sent; None if there is none."""
        try:
            text = {name: printable((entries[name.encode()] or b"").decode()) for name in cls._fields}
            addresses = tuple(server_address(address) for address in text["addresses"].split())
        except (KeyError, UnicodeError, argparse.ArgumentTypeError):
            return None
        return cls(**{**text, "addresses": addresses, "encrypted": text["encrypted"] == "yes"})  # type: ignore[arg-type]


@contextlib.contextmanager
def announced(describe: Callable[[], Announcement]) -> Iterator[None]:
    """Announce what `describe` returns, and its changes, until the context ends."""
    is_over = threading.Event()
    announcer = threading.Thread(target=_announce, args=(describe, is_over), daemon=True, name="announcer")
    announcer.start()
    try:
        yield
    finally:
        is_over.set()
        announcer.join(timeout=CHECK_EVERY)  # says goodbye


def _announce(describe: Callable[[], Announcement], is_over: threading.Event) -> None:
    from zeroconf import Error, ServiceInfo

    name = f"{secrets.token_hex(8)}.{SERVICE}"
    while not is_over.is_set():
        said = describe()
        if said.addresses:  # without one, there is no network yet
            with contextlib.suppress(OSError, Error), _network() as network:  # the next attempt may work
                ips = [str(socket.getaddrinfo(address.host, None)[0][4][0]) for address in said.addresses]
                info = ServiceInfo(SERVICE, name, said.addresses[0].port, properties=said.write(), parsed_addresses=ips)
                network.register_service(info, strict=False)  # not strict: the RFC's names have up to 15 characters
                while describe() == said and not is_over.wait(CHECK_EVERY):
                    pass
        is_over.wait(CHECK_EVERY)


def hear(seconds: float) -> list[Announcement]:
    """Listen for announcements and return them, soon after the first one, or after `seconds` if there is none."""
    from zeroconf import Error, ServiceBrowser

    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    until = time.monotonic() + seconds
    heard: list[Announcement] = []
    try:
        with _network() as network:
            ServiceBrowser(network, SERVICE, handlers=[lambda name, **event: names.put(name)])
            while True:
                try:
                    name = names.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    return heard
                info = network.get_service_info(SERVICE, name, REPLY_TIMEOUT)
                announcement = info and Announcement.read(info.properties)
                if announcement and announcement not in heard:
                    heard.append(announcement)
                    until = min(until, time.monotonic() + GATHER)
    except (OSError, Error):  # there is no network
        time.sleep(max(0.0, until - time.monotonic()))
        return heard


def _network() -> Zeroconf:
    from zeroconf import IPVersion, Zeroconf

    return Zeroconf(ip_version=IPVersion.All if socket.has_dualstack_ipv6() else IPVersion.V4Only)

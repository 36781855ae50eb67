"""Addresses: HOST:PORT in command lines, and those at which others reach this machine."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import socket
from typing import NamedTuple

# A name, an IPv4 address, or an IPv6 address in brackets; then a port. The resolver finds out whether the name exists.
ADDRESS = re.compile(r"([\w-]{1,63}(?:\.[\w-]{1,63})*\.?|\[[\w.%-]*:[\w.:%-]*\]):([0-9]{1,5})", re.ASCII)
MOST_SHOWN = 5  # addresses; more would be no help


class Address(NamedTuple):
    """A TCP address; as text, `HOST:PORT` or `[IPV6]:PORT`."""

    host: str  # a name or an IP address, without brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent to this address stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host == "localhost"

    @property
    def is_unspecified(self) -> bool:
        """Whether this is 0.0.0.0 or [::], all addresses of a machine: to listen on, not to connect to."""
        return self.host in ("0.0.0.0", "::")


def _parse(text: str) -> Address:
    """Split `HOST:PORT` or `[IPV6]:PORT`; raises argparse's error for a wrong value if `text` is neither."""
    match = ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise argparse.ArgumentTypeError(f"must look like 192.168.1.10:8080 or [fe80::1]:8080, not {text!r}")
    return Address(match[1].strip("[]"), int(match[2]))


def server_address(text: str) -> Address:
    """Convert to an address to connect to."""
    address = _parse(text)
    if address.is_unspecified:
        raise argparse.ArgumentTypeError(f"{text} is an address to listen on; use one that the server printed")
    return address


def listen_address(text: str) -> Address:
    """Convert to an address to listen on, such as `0.0.0.0:8080`: every address of this machine, port 8080."""
    parsed = _parse(text)
    try:
        # gRPC itself would share the port with a program that uses it already: some clients would end up there.
        family, kind, protocol, _, address = socket.getaddrinfo(*parsed, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # connections of an earlier server that are still closing do not matter
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot listen on {text}: {error.strerror or error}") from None
    return parsed


def reachable_addresses(listening: Address) -> list[Address]:
    """Addresses at which clients reach a server that listens on `listening`, the likeliest first."""
    if not listening.is_unspecified:
        return [listening]
    import psutil  # only the server needs it

    # Whether it is 0.0.0.0 or [::], gRPC listens on both kinds of addresses.
    entries = [entry for interface in psutil.net_if_addrs().values() for entry in interface]
    own_hosts = [entry.address for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
    ips = [ipaddress.ip_address(host) for host in [*_outward_host(), *own_hosts] if "%" not in host]
    ips.sort(key=lambda ip: ip.is_link_local)  # those of a cable from board to laptop come last
    hosts = dict.fromkeys(str(ip) for ip in ips if not ip.is_loopback and not (ip.version == 6 and ip.is_link_local))
    return [Address(host, listening.port) for host in hosts or ["127.0.0.1"]][:MOST_SHOWN]


def _outward_host() -> list[str]:
    """Own IPv4 address on the way to the internet; none without a route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 1))  # sends nothing; only asks which of our addresses leads there
        return [probe.getsockname()[0]]
    return []

"""Addresses: HOST:PORT in command lines, and those under which others reach this machine."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import socket
from typing import Union

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
LONGEST_NAME = 253  # characters (RFC 1035)
NUMBER = re.compile(r"0[xX].*|[0-9]*")
PORT = re.compile(r"[0-9]{1,5}")
ZONE = re.compile(r"(%[\w.-]+)?")

MOST_SHOWN = 5  # addresses; more would be no help
# The names of interfaces to containers and virtual machines begin like this.
VIRTUAL = re.compile(r"docker|br-[0-9a-f]+$|podman|cni|veth|cali|cilium|flannel|kube|lxc|lxd|incus|virbr|vmnet|vboxnet")


def split_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT` into host and port; argparse's error for a wrong value if it is neither."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        is_host = _is_ipv6(host)
    else:
        is_host = _is_ipv4_or_name(host)
    if not is_host or not PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must look like 192.168.1.10:8080 or [fe80::1]:8080, not {address!r}")
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    address, percent, zone = host.partition("%")  # fe80::1%eth0: through which interface; Python 3.8 does not know that
    return ":" in address and _ip(address) is not None and ZONE.fullmatch(percent + zone) is not None


def _is_ipv4_or_name(host: str) -> bool:
    if len(host) > LONGEST_NAME:
        return False
    try:
        name = host.encode("idna").decode()  # as the functions of socket do it, which would raise this error later
    except UnicodeError:  # such as 192.168.1..10
        return False
    if all(NUMBER.fullmatch(label) for label in name.split(".")):
        return str(_ip(host)) == host  # 192.168.1 and 010.0.0.1 are other addresses than they look like
    return len(name) <= LONGEST_NAME and NAME.fullmatch(name) is not None


def _ip(host: str) -> IPAddress | None:
    """Return the IP address that a host is; None if it is a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_unspecified(host: str) -> bool:
    address = _ip(host)
    return address is not None and address.is_unspecified


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ascii_address(address: str) -> str:
    """Return `xn--bro-hoa.local:8080` for `büro.local:8080`, which gRPC, unlike socket, does not do by itself."""
    host, port = split_address(address)
    return _join(host.encode("idna").decode(), port)


def server_address(text: str) -> str:
    """Check an address to connect to."""
    host, _ = split_address(text)
    if _is_unspecified(host):
        raise argparse.ArgumentTypeError(f"{text} is an address to listen on; give one that the server printed")
    return text


def listen_address(text: str) -> str:
    """Check an address to listen on, such as `0.0.0.0:8080`: every address of this machine, port 8080."""
    host, port = split_address(text)
    try:
        # gRPC itself would share the port with the program that has it, and some clients would end up there.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # connections of an earlier server that are still closing do not matter
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot listen on {text}: {error.strerror or error}") from None
    return text


def is_loopback(address: str) -> bool:
    """Tell whether what is sent to this address stays on this machine."""
    host, _ = split_address(address)
    ip = _ip(host)
    return host == "localhost" if ip is None else ip.is_loopback


def reachable_addresses(server_address: str) -> list[str]:
    """Return the addresses under which clients reach a server that listens on `server_address`, the likeliest first."""
    host, port = split_address(server_address)
    if not _is_unspecified(host):
        return [server_address]
    # Whether it is 0.0.0.0 or [::], gRPC listens on both kinds of addresses.
    likeliest, interfaces = _outward_addresses(), _addresses_of_interfaces()

    def rank(address: IPAddress) -> tuple[bool, bool, int]:
        seldom_meant = address.is_link_local or VIRTUAL.match(interfaces[address]) is not None
        return address not in likeliest, seldom_meant, address.version

    ranked = sorted(interfaces, key=rank)[:MOST_SHOWN]
    return [_join(str(address), port) for address in ranked] or [f"127.0.0.1:{port} (on this machine)"]


def _addresses_of_interfaces() -> dict[IPAddress, str]:
    """Return this machine's addresses that others could use, each with the name of its interface."""
    import psutil  # only the server needs it

    up = {name for name, state in psutil.net_if_stats().items() if state.isup and "loopback" not in state.flags}
    addresses = {
        ipaddress.ip_address(entry.address.partition("%")[0]): name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family in (socket.AF_INET, socket.AF_INET6)
    }
    # On another machine, fe80::1 needs the name of an interface there.
    return {
        address: name
        for address, name in addresses.items()
        if not address.is_loopback and not (address.version == 6 and address.is_link_local)
    }


def _outward_addresses() -> list[IPAddress]:
    """Return the addresses, IPv4 and IPv6, from which this machine talks to the internet; none without a route."""
    found = []
    for family, stranger in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as question:
            question.connect((stranger, 1))  # sends nothing; only asks which of our addresses leads there
            found.append(ipaddress.ip_address(question.getsockname()[0]))
    return found

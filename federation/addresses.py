"""Addresses: HOST:PORT in command lines, and those under which others reach this machine."""

from __future__ import annotations

import argparse
import os
import socket


def split_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT` into host and port; argparse's error for a wrong value if it is neither."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address without brackets: which colon is the port's?
    if not host or "/" in host or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must look like 192.168.1.10:8080 or [fe80::1]:8080, not {address!r}")
    return host, int(port)


def server_address(text: str) -> str:
    """Check an address to connect to."""
    host, _ = split_address(text)
    if host in ("0.0.0.0", "::"):
        raise argparse.ArgumentTypeError(f"{text} is an address to listen on; give one that the server printed")
    return text


def listen_address(text: str) -> str:
    """Check an address to listen on, such as `0.0.0.0:8080`: every IPv4 address of this machine, port 8080."""
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
    return host in ("localhost", "::1") or host.startswith("127.")


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

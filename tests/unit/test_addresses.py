"""Addresses: what is one, to connect to or to listen on, and under which others reach this machine."""

from __future__ import annotations

import argparse
import socket
import types
from concurrent.futures import ThreadPoolExecutor

from federation.wire import addresses
from federation.wire.addresses import Address, listen_address, reachable_addresses, server_address

import grpc
import psutil
import pytest
from processes import free_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.7:8080", ("10.0.0.7", 8080)),
        ("my_laptop.local.:1", ("my_laptop.local.", 1)),
        ("[fe80::1%eth0.1]:65535", ("fe80::1%eth0.1", 65535)),
    ],
)
def test_addresses(text, address):
    assert server_address(text) == address
    assert str(server_address(text)) == text


NO_ADDRESSES = [
    *("", "host", ":80", "host:", "host:0", "host:65536", "host:-1", "host:+80", "host:８０", "host:80\n"),
    *("http://host:80", "host/path:80", "user@host:80", "a b:80", "\udcff:80", f"host:{'9' * 5000}"),
    *("192.168.1..10:8080", f"{'a' * 64}.local:80", "büro.local:80"),  # gRPC takes ASCII only
    *("fe80::1:80", "[fe80::1:80", "fe80::1]:80", "[host]:80", "[]:80"),
]


@pytest.mark.parametrize("text", NO_ADDRESSES, ids=lambda text: ascii(text[:30]))
def test_no_addresses(text):
    for check in (server_address, listen_address):
        with pytest.raises(argparse.ArgumentTypeError, match="^must look like 192.168.1.10:8080"):
            check(text)


EVERYWHERE = [Address("0.0.0.0", 8080), Address("::", 8080)]


@pytest.mark.parametrize("everywhere", EVERYWHERE, ids=str)
def test_an_address_to_listen_on_is_none_to_connect_to(everywhere):
    with pytest.raises(argparse.ArgumentTypeError, match="is an address to listen on; use one that the server printed"):
        server_address(str(everywhere))


@pytest.fixture
def machine(monkeypatch):
    """Return a function that has this machine's interfaces be others: their addresses, by name."""

    def machine(*outward, **interfaces):
        def entry(address):
            return types.SimpleNamespace(address=address, family=socket.AF_INET6 if ":" in address else socket.AF_INET)

        mac = types.SimpleNamespace(address="02:00:00:00:00:01", family=psutil.AF_LINK)
        interfaces = {"lo": ["127.0.0.1", "::1"], **interfaces}
        entries = {name: [mac, *map(entry, found)] for name, found in interfaces.items()}
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)
        monkeypatch.setattr(addresses, "_outward_host", lambda: list(outward))

    return machine


@pytest.mark.parametrize("everywhere", EVERYWHERE, ids=str)
def test_the_outward_address_comes_first(machine, everywhere):
    machine(
        "192.168.1.10",
        docker0=["172.17.0.1", "fd00:17::1"],
        eth0=["10.9.8.7", "169.254.7.7", "fe80::7%eth0", "fe80::7"],
        wlan0=["2001:db8::10", "192.168.1.10"],
    )
    expected = ["192.168.1.10:8080", "172.17.0.1:8080", "[fd00:17::1]:8080", "10.9.8.7:8080", "[2001:db8::10]:8080"]
    assert [str(address) for address in reachable_addresses(everywhere)] == expected


def test_other_machines(machine):
    machine(**{f"eth{number}": [f"10.0.{number}.1"] for number in range(20)})
    assert reachable_addresses(EVERYWHERE[0]) == [(f"10.0.{number}.1", 8080) for number in range(5)]  # enough
    machine(usb0=["169.254.7.7"], wlan0=["10.9.8.7"])
    assert reachable_addresses(EVERYWHERE[0]) == [("10.9.8.7", 8080), ("169.254.7.7", 8080)]
    machine(wlan0=["fe80::7%wlan0"])
    assert reachable_addresses(EVERYWHERE[0]) == [("127.0.0.1", 8080)]
    assert reachable_addresses(Address("laptop.local", 80)) == [("laptop.local", 80)]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_grpc_listens_on_all_addresses_that_are_printed(host):
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    for address in reachable_addresses(Address(host.strip("[]"), port)):
        socket.create_connection(address, timeout=5).close()
    server.stop(0).wait()


def test_what_can_be_listened_on():
    address = free_address()
    for _ in range(2):  # it stays free
        assert str(listen_address(address)) == address
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for text, why in ((taken, "Address already in use"), ("192.0.2.1:8080", ""), ("no-such-name.invalid:80", "")):
            with pytest.raises(argparse.ArgumentTypeError, match=f"cannot listen on {text}: {why}"):
                listen_address(text)


@pytest.mark.parametrize(
    ("host", "stays_here"),
    [
        *((host, True) for host in ("localhost", "127.8.9.10", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.127.1", "fe80::1%lo", "localhost.example.org")),
    ],
)
def test_what_stays_on_this_machine(host, stays_here):
    assert Address(host, 80).is_loopback is stays_here

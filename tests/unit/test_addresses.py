"""Addresses: what is one, to connect to or to listen on, and under which others reach this machine."""

from __future__ import annotations

import argparse
import socket
import types
from concurrent.futures import ThreadPoolExecutor

from federation.wire import addresses
from federation.wire.addresses import (
    ascii_address,
    is_loopback,
    listen_address,
    reachable_addresses,
    server_address,
    split_address,
)

import grpc
import psutil
import pytest
from processes import free_address

LONG = ".".join(["a" * 50] * 5)  # 254 characters


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("10.0.0.7:8080", ("10.0.0.7", 8080)),
        ("laptop.local:1", ("laptop.local", 1)),
        ("laptop.local.:1", ("laptop.local.", 1)),
        ("büro.local:1", ("büro.local", 1)),
        ("my_laptop:1", ("my_laptop", 1)),
        ("pi-3:1", ("pi-3", 1)),
        ("3com:1", ("3com", 1)),
        (f"{LONG[1:]}:1", (LONG[1:], 1)),
        ("[fe80::1]:80", ("fe80::1", 80)),
        ("[fe80::1%eth0.1]:80", ("fe80::1%eth0.1", 80)),
        ("[::ffff:10.0.0.7]:80", ("::ffff:10.0.0.7", 80)),
    ],
)
def test_addresses(address, parts):
    assert split_address(address) == parts
    assert server_address(address) == address


NO_ADDRESSES = [
    *("", "host", ":80", "host:", "host:0", "host:65536", "host:-1", "host:8o", "host:+80", "host:８０", "host: 80"),
    *("host:80\n", f"host:{'9' * 5000}", "http://host:80", "host/path:80", "user@host:80", "host?:80", "*:80"),
    *("a b:80", "a\0b:80", "a\tb:80", "\udcff:80", "-a:80", "a-:80"),
    *("192.168.1..10:8080", "192.168.1.10.:80", "host..local:80", ".host:80", "host..:80", ".:80"),
    *(f"{'a' * 64}:80", f"{'ü' * 60}:80", f"{LONG}:80", f"{'a' * 100_000}:80"),
    *("192.168.1:80", "1.2.3.400:80", "1.2.3.4.5:80", "010.0.0.1:80", "0x7f.1:80", "1:80", "１０.0.0.1:80"),
    *("fe80::1:80", "[fe80::1:80", "fe80::1]:80", "[host]:80", "[10.0.0.7]:80", "[]:80", "[fe80::1::2]:80"),
    *("[fe80::1%]:80", "[fe80::1%a b]:80", "[fe80::1%a%b]:80", "10.0.0.7%eth0:80"),
]


@pytest.mark.parametrize("check", [split_address, server_address, listen_address])
@pytest.mark.parametrize("text", NO_ADDRESSES, ids=lambda text: ascii(text[:30]))
def test_no_addresses(check, text):
    with pytest.raises(argparse.ArgumentTypeError, match="^must look like 192.168.1.10:8080"):
        check(text)


@pytest.mark.parametrize(
    ("address", "for_grpc"),
    [
        ("büro.local:80", "xn--bro-hoa.local:80"),
        *((same, same) for same in ("10.0.0.7:80", "[fe80::1%eth0]:80", "my_laptop.:80", f"{'a' * 63}:80")),
    ],
)
def test_an_address_for_grpc(address, for_grpc):
    assert ascii_address(address) == for_grpc


EVERYWHERE = ["0.0.0.0:8080", "[::]:8080", "[0::0]:8080", "[0:0:0:0:0:0:0:0]:8080", "[::ffff:0.0.0.0]:8080"]


@pytest.mark.parametrize("text", EVERYWHERE)
def test_an_address_to_listen_on_is_none_to_connect_to(text):
    assert split_address(text)[1] == 8080
    with pytest.raises(argparse.ArgumentTypeError, match="is an address to listen on"):
        server_address(text)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that has this machine's interfaces be others: their addresses, by name."""

    def machine(down=(), outward=(), **interfaces):
        def entry(address):
            return types.SimpleNamespace(address=address, family=socket.AF_INET6 if ":" in address else socket.AF_INET)

        def state(name):
            return types.SimpleNamespace(isup=name not in down, flags="up,loopback" if name == "lo" else "up")

        interfaces = {"lo": ["127.0.0.1", "::1"], **interfaces}
        entries = {
            name: [types.SimpleNamespace(address="02:00:00:00:00:01", family=psutil.AF_LINK), *map(entry, found)]
            for name, found in interfaces.items()
        }
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)
        monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: state(name) for name in interfaces})
        monkeypatch.setattr(addresses, "_outward_addresses", lambda: [addresses._ip(address) for address in outward])

    return machine


@pytest.mark.parametrize("everywhere", EVERYWHERE)
def test_a_lan_without_a_way_to_the_internet(machine, everywhere):
    machine(eth0=["10.9.8.7", "fe80::7%eth0"])
    assert reachable_addresses(everywhere) == ["10.9.8.7:8080"]


@pytest.mark.parametrize("everywhere", EVERYWHERE)
def test_the_likeliest_address_comes_first(machine, everywhere):
    machine(
        outward=["192.168.1.10", "2001:db8::10"],
        docker0=["172.17.0.1", "fd00:17::1"],
        eth0=["10.9.8.7"],
        wlan0=["192.168.1.11", "2001:db8::10", "192.168.1.10"],
    )
    expected = ["192.168.1.10:8080", "[2001:db8::10]:8080", "10.9.8.7:8080", "192.168.1.11:8080", "172.17.0.1:8080"]
    assert reachable_addresses(everywhere) == expected


@pytest.mark.parametrize(
    "bridge", ["docker0", "docker_gwbridge", "br-0123456789ab", "virbr0", "veth1a2b3c", "cni0", "podman1", "lxcbr0"]
)
def test_a_bridge_to_containers_comes_last(machine, bridge):
    machine(**{bridge: ["10.0.0.1"], "br-lan": ["192.168.1.1"], "br0": ["fd00::1"]})
    assert reachable_addresses("0.0.0.0:80") == ["192.168.1.1:80", "[fd00::1]:80", "10.0.0.1:80"]


def test_a_direct_cable_comes_last(machine):
    machine(eth0=["169.254.7.7"], wlan0=["fd00::1"])
    assert reachable_addresses("0.0.0.0:80") == ["[fd00::1]:80", "169.254.7.7:80"]


def test_five_addresses_are_enough(machine):
    machine(**{f"eth{number}": [f"10.0.{number}.1"] for number in range(20)})
    assert reachable_addresses("0.0.0.0:80") == [f"10.0.{number}.1:80" for number in range(5)]


def test_without_a_network_only_this_machine_is_left(machine):
    machine(lo=["127.0.0.1", "10.255.255.254", "::1"], eth0=["192.168.1.10"], wlan0=["fe80::7%wlan0"], down=["eth0"])
    for everywhere in EVERYWHERE:
        assert reachable_addresses(everywhere) == ["127.0.0.1:8080 (on this machine)"]


@pytest.mark.parametrize("address", ["127.0.0.1:80", "10.9.8.7:80", "[fd00::1]:80", "laptop.local:80"])
def test_a_server_that_listens_on_one_address(address):
    assert reachable_addresses(address) == [address]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"])
def test_grpc_listens_on_all_addresses_that_are_told(host):
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    for address in reachable_addresses(f"{host}:{port}"):
        socket.create_connection(split_address(address.split()[0]), timeout=5).close()
    server.stop(0).wait()


def test_a_free_port_can_be_listened_on():
    address = free_address()
    assert listen_address(address) == address
    assert listen_address(address) == address  # and stays free


def test_a_port_in_use_cannot():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(argparse.ArgumentTypeError, match=f"cannot listen on {address}: Address already in use"):
            listen_address(address)


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(argparse.ArgumentTypeError, match="cannot listen on 192.0.2.1:8080"):
        listen_address("192.0.2.1:8080")


@pytest.mark.parametrize(
    ("address", "stays_here"),
    [
        ("localhost:80", True),
        ("127.0.0.1:80", True),
        ("127.8.9.10:80", True),
        ("[::1]:80", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("192.168.127.1:80", False),
        ("[0::1]:80", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("[fe80::1%lo]:80", False),
        ("localhost.example.org:80", False),
        ("127.example.org:80", False),
    ],
)
def test_what_stays_on_this_machine(address, stays_here):
    assert is_loopback(address) is stays_here

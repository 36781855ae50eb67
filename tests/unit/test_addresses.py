"""Addresses: what is one, to connect to or to listen on, and under which others reach this machine."""

from __future__ import annotations

import argparse
import socket

from federation.addresses import is_loopback, listen_address, reachable_addresses, server_address, split_address

import pytest
from processes import free_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [("10.0.0.7:8080", ("10.0.0.7", 8080)), ("laptop.local:1", ("laptop.local", 1)), ("[fe80::1]:80", ("fe80::1", 80))],
)
def test_addresses(address, parts):
    assert split_address(address) == parts
    assert server_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:8o",
        "fe80::1:80",
        "http://host:80",
        "host/path:80",
        "a b:80",
    ],
)
def test_no_addresses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must look like 192.168.1.10:8080"):
        split_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:8080"])
def test_an_address_to_listen_on_is_none_to_connect_to(text):
    assert split_address(text)[1] == 8080
    with pytest.raises(argparse.ArgumentTypeError, match="is an address to listen on"):
        server_address(text)


def test_addresses_for_clients():
    assert reachable_addresses("127.0.0.1:80") == ["127.0.0.1:80"]
    assert reachable_addresses("0.0.0.0:80")[-1] == "127.0.0.1:80 (on this machine)"
    assert reachable_addresses("[::]:80")[-1] == "127.0.0.1:80 (on this machine)"


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
        ("localhost.example.org:80", False),
    ],
)
def test_what_stays_on_this_machine(address, stays_here):
    assert is_loopback(address) is stays_here

"""Announcements: what is one, whose clients believe it, and which server a client without an address chooses."""

from __future__ import annotations

from pathlib import Path

from federation.client import search
from federation.client.flags import ClientSettings
from federation.client.search import ADVICE, HERE, Search
from federation.data.partitions import Partitioning
from federation.flags import Failure
from federation.wire.addresses import Address
from federation.wire.discovery import Announcement
from federation.wire.handshake import Refused

import pytest

TOKEN = b"0123456789abcdef"
FIRST = Announcement("first", (Address("10.0.0.1", 8080), Address("fd00::1", 8080)), "mnist", encrypted=False)
SECOND = FIRST._replace(run="second", addresses=(Address("10.0.0.2", 8080),))


def entries(announcement: Announcement, **changes: str) -> dict[bytes, bytes]:
    """What travels."""
    return {name.encode(): value.encode() for name, value in {**announcement.write(), **changes}.items()}


@pytest.mark.parametrize("announcement", [FIRST, FIRST._replace(dataset="", encrypted=True).signed(TOKEN)])
def test_what_is_announced_is_read(announcement):
    assert Announcement.read(entries(announcement)) == announcement


def test_what_strangers_announce():
    assert Announcement.read({}) is None
    assert Announcement.read({**entries(FIRST), b"run": b"\xff"}) is None
    assert Announcement.read(entries(FIRST, addresses="0.0.0.0:8080")) is None
    announcement = Announcement.read({**entries(FIRST, run="\x1b[2Jfirst\n"), b"dataset": None})
    assert (announcement.run, announcement.dataset) == (" [2Jfirst ", "")


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        (FIRST, ("mnist", False, None), None),
        (FIRST.signed(TOKEN), ("mnist", False, TOKEN), None),
        (FIRST._replace(dataset=""), ("cifar10", False, None), None),
        (FIRST, ("cifar10", False, None), "its clients have mnist, this one has cifar10"),
        (FIRST, ("mnist", True, None), "it does not encrypt"),
        (FIRST._replace(encrypted=True), ("mnist", False, None), "it requires TLS"),
        (FIRST.signed(TOKEN), ("mnist", False, None), "it requires a token"),
        (FIRST, ("mnist", False, TOKEN), "it does not have this client's token"),
        (FIRST.signed(b"another"), ("mnist", False, TOKEN), "it does not have this client's token"),
        *(
            (FIRST.signed(TOKEN)._replace(**change), ("mnist", False, TOKEN), "it does not have this client's token")
            for change in ({"addresses": SECOND.addresses}, {"run": "second"}, {"signature": "é"})
        ),
    ],
)
def test_which_server_fits(server, client, reason):
    assert str(server.misfit(*client)).startswith(str(reason))


@pytest.fixture
def look(monkeypatch, capsys):
    """Return a function that looks where these servers are heard and these addresses answer; what is told, too."""
    client = Search(ClientSettings(Partitioning("mnist", Path("data")), 0), print)

    def look(*servers, answering=(FIRST.addresses[0], SECOND.addresses[0])):
        def probe(address, root_certificate, name):
            if address not in answering:
                raise OSError(113, "No route to host")
            if address.port == 1:
                raise Refused("something else")

        monkeypatch.setattr(search, "probe", probe)
        monkeypatch.setattr(search, "hear", lambda seconds: list(servers))
        address = client.look()
        lines = capsys.readouterr().out.splitlines()
        return address, [line for line in lines if "on port 8080" not in line and "not encrypted" not in line]

    look.client = client
    return look


def test_a_server_on_this_machine_comes_first(look):
    assert look(FIRST, answering=[HERE, *FIRST.addresses]) == (HERE, [])


def test_a_server_is_used_at_the_first_address_that_answers(look):
    assert look(FIRST, answering=FIRST.addresses[1:]) == (FIRST.addresses[1], ["found server 'first'"])
    assert look(FIRST) == (FIRST.addresses[0], [])  # it is no news
    why = "10.0.0.1:8080 cannot be reached (No route to host); [fd00::1]:8080 cannot be reached (No route to host)"
    assert look(FIRST, answering=()) == (None, [f"found {FIRST}, but {why}"])
    refusing = FIRST._replace(addresses=(Address("h", 1),))
    assert look(refusing, answering=refusing.addresses) == (None, [f"found {refusing}, but something else"])


def test_of_two_servers_the_one_that_fits(look):
    other = SECOND._replace(dataset="cifar10")
    why = "found server 'second' at 10.0.0.2:8080, but its clients have cifar10, this one has mnist"
    assert look(other, FIRST) == (FIRST.addresses[0], [why, "found server 'first'"])
    assert look(SECOND, FIRST, answering=FIRST.addresses)[0] == FIRST.addresses[0]  # the other one has gone


def test_two_servers_that_fit(look):
    with pytest.raises(Failure) as failure:
        look(FIRST, SECOND)
    expected = (
        "found 2 servers, 'first' at 10.0.0.1:8080 and 'second' at 10.0.0.2:8080: choose one with --server_address"
    )
    assert (str(failure.value), failure.value.exit_code) == (expected, 2)
    look(SECOND)
    assert look(FIRST, SECOND)[0] == SECOND.addresses[0]  # the one that it has lost


def test_advice_after_a_while(look, monkeypatch):
    assert look() == (None, [])
    look.client.advise_at = 0
    assert look() == (None, [ADVICE])


def test_without_zeroconf_only_this_machine_is_looked_at(look, monkeypatch):
    def hear(seconds):
        raise ImportError

    look()
    monkeypatch.setattr(search, "hear", hear)
    monkeypatch.setattr(search.time, "sleep", lambda seconds: None)
    lines = []
    look.client.tell = lines.append
    assert look.client.look() is None
    assert lines[-1] == "cannot look on the network: install the package zeroconf, or use --server_address"

"""The client's way to its server: what it tells, how long it pauses, when it gives up and when it does not."""

from __future__ import annotations

import math
import types
from pathlib import Path

from federation.client import about, connection
from federation.client.flags import ClientSettings
from federation.client.stream import ConnectionLost
from federation.data.partition_file import Examples, write
from federation.data.partitions import Partition
from federation.wire.handshake import Refused, fingerprint, printable

import numpy as np
import pytest
from fakes import MODEL, TOKEN, as_if_from
from flwr.client import NumPyClient

ADDRESS = "127.0.0.1:8080"
PARTITION = Partition("mnist", 0, 50, Path("data"))


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes forward while the client pauses; `clock.pauses` are the longest it might have made."""
    clock = types.SimpleNamespace(now=0.0, pauses=[])

    def sleep(seconds):
        clock.now += seconds
        clock.pauses.append(seconds)

    monkeypatch.setattr(connection, "time", types.SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    monkeypatch.setattr(connection, "random", types.SimpleNamespace(uniform=lambda least, most: most))
    return clock


@pytest.fixture
def connect(monkeypatch, clock):
    """Return a function that connects until the end, where each attempt goes as told: None is a goodbye."""

    def connect(*attempts, retry_for=math.inf):
        outcomes = iter(attempts)

        def probe(address, root_certificate):
            assert (address, root_certificate) == (ADDRESS, b"root")
            connect.outcome = next(outcomes)
            if isinstance(connect.outcome, OSError):
                raise connect.outcome

        def answer_server(address, root_certificate, answer):
            assert (address, root_certificate, answer) == (ADDRESS, b"root", "answer")
            if connect.outcome is not None:
                raise connect.outcome

        monkeypatch.setattr(connection, "probe", probe)
        monkeypatch.setattr(connection, "answer_server", answer_server)
        settings = ClientSettings(PARTITION, server_address=ADDRESS, root_certificate=b"root", retry_for=retry_for)
        connection._connect_until_the_end(types.SimpleNamespace(answer="answer"), settings)
        assert next(outcomes, "end") == "end"

    return connect


NOBODY = ConnectionRefusedError(111, "Connection refused")
TAKEN = Refused("refused by the server: its --cid is taken", again=True)
LOST = ConnectionLost("UNAVAILABLE", was_asked=True)
NOT_ASKED = ConnectionLost("UNAVAILABLE", was_asked=False)


def test_a_server_that_is_there(connect, clock, capsys):
    connect(None)
    assert clock.pauses == []
    assert capsys.readouterr().out == f"connecting to {ADDRESS}\n"


def test_a_server_that_is_not_up_yet_is_told_once(connect, clock, capsys):
    connect(NOBODY, NOBODY, NOBODY, None)
    assert len(clock.pauses) == 3
    assert capsys.readouterr().out == (
        f"no server at {ADDRESS} yet (Connection refused): waiting for it\nconnecting to {ADDRESS}\n"
    )


def test_a_name_that_is_not_known_yet(connect, capsys):
    connect(OSError("its certificate is not valid yet"), None)
    assert f"no server at {ADDRESS} yet (its certificate is not valid yet): waiting" in capsys.readouterr().out


def test_a_connection_that_is_lost(connect, clock, capsys):
    connect(LOST, NOBODY, None)
    assert capsys.readouterr().out.splitlines() == [
        f"connecting to {ADDRESS}",
        f"lost the server at {ADDRESS} (UNAVAILABLE): trying again",
        f"no server at {ADDRESS} yet (Connection refused): waiting for it",
        f"connecting to {ADDRESS}",
    ]


def test_a_refusal_for_now(connect, clock, capsys):
    connect(TAKEN, TAKEN, TAKEN, None)
    assert len(clock.pauses) == 3
    assert capsys.readouterr().out.splitlines() == [
        f"connecting to {ADDRESS}",
        "refused by the server: its --cid is taken: trying again",
    ]


def test_a_refusal_for_good(connect, clock):
    with pytest.raises(Refused, match="^another model$"):
        connect(NOBODY, Refused("another model"))
    assert len(clock.pauses) == 1


def test_pauses_become_longer_but_not_too_long(connect, clock):
    connect(*[NOBODY] * 8, None)
    assert clock.pauses == [1, 2, 4, 8, 16, 20, 20, 20]


def test_pauses_are_short_again_after_the_server_was_there(connect, clock):
    connect(NOBODY, NOBODY, LOST, NOT_ASKED, LOST, None)
    assert clock.pauses == [1, 2, 1, 2, 1]


def test_a_client_gives_up(connect, clock):
    with pytest.raises(Refused, match=rf"no connection to {ADDRESS} for 10 s: giving up"):
        connect(*[NOBODY] * 99, retry_for=10)
    assert clock.pauses == [1, 2, 4, 3]  # and not later than told


def test_the_time_begins_anew_when_the_server_was_there(connect, clock):
    connect(NOBODY, NOBODY, NOBODY, LOST, NOBODY, NOBODY, NOBODY, None, retry_for=10)
    with pytest.raises(Refused, match="giving up"):
        connect(*[NOT_ASKED] * 99, retry_for=10)  # somebody hangs up again and again


def test_clients_do_not_all_come_at_once(monkeypatch):
    pauses = []
    monkeypatch.setattr(
        connection, "time", types.SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: pauses.append(seconds))
    )
    for _ in range(50):
        connection._Attempts(ADDRESS, math.inf).wait()
    assert len(set(pauses)) > 40 and all(0.5 <= pause <= 1 for pause in pauses)


@pytest.fixture
def stay(monkeypatch, tmp_path):
    """Return a function that calls `stay_connected` and returns the wrapper that would have answered."""
    partition = Partition("cifar10", 7, 10, tmp_path, 0.3)
    examples = Examples(np.zeros((2, 32, 32, 3), np.uint8), np.arange(2))
    write(partition.path, examples, ["ant", "bee"])
    settings = ClientSettings(partition, server_address=ADDRESS, token=TOKEN)
    watched: list[int] = []
    monkeypatch.setattr(connection, "_exit_at_signals", lambda: None)
    monkeypatch.setattr(connection, "watch_connections", watched.append)

    class Client(NumPyClient):
        def get_parameters(self, config):
            return MODEL

    as_if_from("/somewhere/client_x.py", Client, monkeypatch)

    def stay(outcome=None):
        wrappers = []

        def connect(wrapper, given):
            assert given is settings
            wrappers.append(wrapper)
            if outcome is not None:
                raise outcome

        monkeypatch.setattr(connection, "_connect_until_the_end", connect)
        connection.stay_connected(Client(), settings)
        assert watched == [8080]
        return wrappers[0]

    stay.watched = watched
    return stay


def test_who_the_client_says_it_is(stay, capsys):
    wrapper = stay()
    known = wrapper.identity
    assert (known.cid, known.num_clients, known.dataset, known.script) == (7, 10, "cifar10", "client_x.py")
    assert (known.model, known.device) == (fingerprint(MODEL), printable(about.describe()))
    assert (known.alpha, known.classes) == ("0.3", "ant, bee")
    assert len(known.instance) == 16 and wrapper.token == TOKEN
    assert capsys.readouterr().out == "the server has ended the run\n"


def test_every_start_is_another_instance(stay):
    first = stay().identity.instance
    stay.watched.clear()
    assert stay().identity.instance != first


def test_a_client_that_is_refused_ends_with_its_reason(stay, capsys):
    with pytest.raises(SystemExit) as end:
        stay(Refused("go"))
    assert end.value.code == "go"
    assert "has ended the run" not in capsys.readouterr().out

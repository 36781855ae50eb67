"""The client's way to its server: what it tells, how long it pauses, when it gives up and when it does not."""

from __future__ import annotations

import math
import types
from pathlib import Path

from federation.client import connection
from federation.client.flags import ClientSettings
from federation.client.stream import ConnectionLost
from federation.data.partitions import Partitioning
from federation.wire.addresses import Address
from federation.wire.handshake import Refused

import pytest

ADDRESS = Address("127.0.0.1", 8080)


@pytest.fixture
def connect(monkeypatch):
    """Return a function that connects until the end, where each attempt goes as told: None is a goodbye.

    `connect.pauses` are the longest that the client might have made.
    """

    def connect(*attempts, retry_for=math.inf):
        outcomes, pauses = iter(attempts), []

        def probe(address, root_certificate, name):
            assert (address, root_certificate, name) == (ADDRESS, b"root", None)
            connect.outcome = next(outcomes)
            if isinstance(connect.outcome, OSError):
                raise connect.outcome

        def answer_server(address, root_certificate, name, answer):
            assert (address, root_certificate, name, answer) == (ADDRESS, b"root", None, "answer")
            if connect.outcome is not None:
                raise connect.outcome

        clock = types.SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
        monkeypatch.setattr(connection, "time", clock)
        monkeypatch.setattr(connection, "random", types.SimpleNamespace(uniform=lambda least, most: most))
        monkeypatch.setattr(connection, "probe", probe)
        monkeypatch.setattr(connection, "answer_server", answer_server)
        data = Partitioning("mnist", Path("data"))
        settings = ClientSettings(data, 0, server_address=ADDRESS, root_certificate=b"root", retry_for=retry_for)
        connect.pauses = pauses
        connection._connect_until_the_end(types.SimpleNamespace(answer="answer"), settings)
        assert next(outcomes, "end") == "end"

    return connect


NOBODY = ConnectionRefusedError(111, "Connection refused")
TAKEN = Refused("refused by the server: its --cid is taken", again=True)
LOST = ConnectionLost("the connection broke", was_asked=True)
NOT_ASKED = ConnectionLost("the connection broke", was_asked=False)

CONNECTING = f"connecting to {ADDRESS}"
WAITING = f"no server at {ADDRESS} yet (Connection refused): waiting for it"
TRYING = f"lost the server at {ADDRESS} (the connection broke): trying again"


@pytest.mark.parametrize(
    ("attempts", "pauses", "lines"),
    [
        ([], [], [CONNECTING]),
        ([NOBODY] * 8, [1, 2, 4, 8, 16, 20, 20, 20], [WAITING, CONNECTING]),
        ([LOST, NOBODY], [1, 2], [CONNECTING, TRYING, WAITING, CONNECTING]),
        ([NOBODY, LOST, NOT_ASKED], [1, 1, 2], [WAITING, CONNECTING, TRYING, CONNECTING]),
        ([TAKEN] * 3, [1, 2, 4], [CONNECTING, f"{TAKEN}: trying again"]),
    ],
    ids=["there", "not up yet", "lost", "there in between", "refused for now"],
)
def test_what_a_client_prints_and_how_long_it_pauses(connect, capsys, attempts, pauses, lines):
    connect(*attempts, None)
    assert connect.pauses == pauses
    assert capsys.readouterr().out.splitlines() == lines


def test_a_client_gives_up(connect):
    with pytest.raises(Refused, match="^another model$"):
        connect(NOBODY, Refused("another model"))
    assert connect.pauses == [1]
    with pytest.raises(Refused, match=rf"no connection to {ADDRESS} for 10 s: giving up"):
        connect(*[NOBODY] * 99, retry_for=10)
    assert connect.pauses == [1, 2, 4, 3]  # and not later than told
    connect(NOBODY, NOBODY, NOBODY, LOST, NOBODY, NOBODY, NOBODY, None, retry_for=10)  # the time began anew
    with pytest.raises(Refused, match="giving up"):
        connect(*[NOT_ASKED] * 99, retry_for=10)  # somebody hangs up again and again

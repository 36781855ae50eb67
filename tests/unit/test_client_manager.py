"""The door of the server: who is admitted, who is refused and what it hears, who is available."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from federation.server import client_manager
from federation.server.client_manager import (
    DeviceClientManager,
    connection_of,
    identity_of,
    key_of,
    name_of,
)
from federation.wire.handshake import Refused

import pytest
from fakes import OK, TOKEN, FakeClient, arrive, identity, learner, wait_until
from flwr.common import GetPropertiesRes
from flwr.server.criterion import Criterion


@pytest.fixture
def clients() -> DeviceClientManager:
    return DeviceClientManager(token=None, member=None)


def newcomer(cid: int, connection: str = "", **changes) -> FakeClient:
    return FakeClient(connection or f"connection of {cid}", identity(cid, **changes))


def test_newcomers_are_admitted(clients, capsys):
    first, second = newcomer(3), newcomer(1)
    arrive(clients, first, second)
    assert clients.all() == {"connection of 3": first, "connection of 1": second}
    assert clients.num_available() == 2
    assert identity_of(first) == identity(3)
    assert capsys.readouterr().out == "client 3 on pi3 has joined, 1 now\nclient 1 on pi1 has joined, 2 now\n"
    clients.unregister(first)
    assert clients.all() == {"connection of 1": second}
    assert capsys.readouterr().out == "client 3 on pi3 has left, 1 now\n"
    clients.run_is_over = True
    clients.unregister(second)
    assert clients.all() == {} and capsys.readouterr().out == ""


def test_who_joins_need_not_be_told(capsys):
    clients = DeviceClientManager(None, None, quiet=True)
    first = newcomer(3)
    arrive(clients, first, newcomer(1, dataset="cifar10"))
    told = capsys.readouterr().out
    assert "joined" not in told and "client 1 on pi1 is refused" in told  # trouble is
    clients.unregister(first)
    assert capsys.readouterr().out == "client 3 on pi3 has left, 0 now\n"


def test_plain_flower_clients_are_admitted(clients, capsys):
    plain = FakeClient("ipv4:127.0.0.1:50000")
    arrive(clients, plain, newcomer(7))
    assert identity_of(plain) is None and name_of(plain) == "plain Flower client ipv4:127"
    assert "plain Flower client ipv4:127 has joined, 1 now" in capsys.readouterr().out
    assert clients.member == identity(7)  # nobody has to fit a plain Flower client
    assert list(clients.by_cid()) == [7]


def test_clients_are_sorted_by_cid_and_plain_ones_come_last(clients):
    members = [FakeClient("b"), newcomer(10), newcomer(9), FakeClient("a")]
    arrive(clients, *members)
    assert [connection_of(client) for client in sorted(members, key=key_of)] == [
        "connection of 9", "connection of 10", "a", "b",
    ]  # fmt: skip
    again = newcomer(9, "newer")
    arrive(clients, again)
    assert key_of(again) == key_of(members[2])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "cifar10"}, "it has cifar10, this federation mnist"),
        ({"num_clients": 10}, "it cuts the data set into 10 partitions (--num_clients), this federation into 50"),
        ({"model": "of tf"}, "it trains the model of client_pytorch.py (of tf), this federation that of client_pytor"),
    ],
)
def test_who_does_not_fit_is_refused_for_good(clients, capsys, changes, reason):
    stranger = newcomer(1, **changes)
    arrive(clients, newcomer(0), stranger)
    assert list(clients.all()) == ["connection of 0"]
    assert stranger.refusal["refused"].startswith(f"refused by the server: {reason}")
    assert stranger.refusal["again"] is False
    assert f"client 1 on pi1 is refused: {reason}" in capsys.readouterr().out
    assert stranger.properties == {}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "it has no token, and this server wants one (--token_file)"),
        (b"the secret of another family", "it has another token than this server (--token_file)"),
    ],
)
def test_who_has_not_the_token_is_refused(capsys, token, reason):
    clients = DeviceClientManager(TOKEN, None)
    friend, stranger = FakeClient("friend", identity(0), TOKEN), FakeClient("stranger", identity(1), token)
    arrive(clients, friend, stranger)
    assert list(clients.all()) == ["friend"]
    assert stranger.refusal == {"refused": f"refused by the server: {reason}", "again": False}
    assert f"client 1 on pi1 is refused: {reason}\n" in capsys.readouterr().out


def test_a_plain_flower_client_without_the_token_is_told_to_go(capsys):
    clients = DeviceClientManager(TOKEN, None)
    plain = FakeClient("plain")
    arrive(clients, plain)
    assert clients.all() == {}
    assert [task for task, *_ in plain.calls] == ["reconnect"]
    assert "a plain Flower client is refused: it has no token" in capsys.readouterr().out


def test_a_stranger_does_not_become_the_member_that_others_must_fit():
    clients = DeviceClientManager(TOKEN, None)
    arrive(clients, FakeClient("stranger", identity(1, dataset="cifar10")), FakeClient("friend", identity(0), TOKEN))
    assert clients.member == identity(0)


def test_a_cid_that_is_taken_may_be_free_later(clients, capsys):
    rival = newcomer(5, "rival", instance="another start of 5", device="pi9")
    arrive(clients, newcomer(5), rival)
    assert list(clients.all()) == ["connection of 5"]
    assert rival.refusal == {"refused": "refused by the server: its --cid is taken by client 5 on pi5", "again": True}
    assert "client 5 on pi9 is refused: its --cid is taken by client 5 on pi5" in capsys.readouterr().out
    for _ in range(3):
        arrive(clients, newcomer(5, "rival", instance="another start of 5", device="pi9"))
    assert capsys.readouterr().out == ""  # the same line once
    clients.unregister(clients.all()["connection of 5"])
    arrive(clients, rival := newcomer(5, "rival", instance="another start of 5", device="pi9"))
    assert list(clients.all().values()) == [rival]


def test_a_client_that_comes_back_takes_the_place_of_its_dead_connection(clients, capsys):
    old, new = newcomer(5, "old"), newcomer(5, "new")
    arrive(clients, newcomer(4), old, new)
    assert set(clients.all()) == {"connection of 4", "new"}
    assert clients.by_cid()[5] is new
    assert capsys.readouterr().out.endswith("client 5 on pi5 has joined, 2 now\n")
    clients.unregister(old)  # Flower notices in the end
    assert set(clients.all()) == {"connection of 4", "new"} and capsys.readouterr().out == ""


def test_a_client_that_comes_back_but_does_not_fit_loses_nothing(clients):
    old = newcomer(5, "old")
    arrive(clients, newcomer(4), old, newcomer(5, "new", dataset="cifar10"))
    assert clients.all()["old"] is old


def test_newcomers_must_fit_the_first_one_while_anybody_is_there(clients):
    first, second, third = newcomer(0), newcomer(1), newcomer(2, dataset="cifar10")
    arrive(clients, first, second)
    assert clients.member == identity(0)
    clients.unregister(first)
    arrive(clients, third)
    assert third.refusal is not None and clients.member == identity(0)
    clients.unregister(second)
    arrive(clients, again := newcomer(2, "again", dataset="cifar10"))
    assert again.refusal is None and clients.member == identity(2, dataset="cifar10")


@pytest.mark.parametrize("how", ["resumed", "has a model"])
def test_newcomers_must_fit_the_model_for_good(how, clients):
    if how == "resumed":
        clients = DeviceClientManager(None, identity(0))
        assert clients.is_fixed
    else:
        first = newcomer(0)
        arrive(clients, first)
        clients.is_fixed = True
        clients.unregister(first)
    stranger = newcomer(2, dataset="cifar10")
    arrive(clients, stranger, newcomer(3))
    assert list(clients.all()) == ["connection of 3"] and stranger.refusal is not None
    assert clients.member == identity(0)


def test_after_plain_flower_clients_made_the_model_the_first_other_one_is_the_member(clients):
    clients.is_fixed = True
    arrive(clients, newcomer(0), stranger := newcomer(1, model="another"))
    assert clients.member == identity(0) and stranger.refusal is not None


def test_a_newcomer_that_leaves_before_its_answer_is_never_there(clients, capsys):
    door = threading.Event()
    ghost = FakeClient("ghost", get_properties=lambda ins: door.wait(10) and GetPropertiesRes(OK, {}))
    others = set(threading.enumerate())
    clients.register(ghost)
    wait_until(lambda: ghost.calls)
    (greeting,) = set(threading.enumerate()) - others
    clients.unregister(ghost)
    door.set()
    greeting.join(10)
    assert not greeting.is_alive()
    assert clients.all() == {} and capsys.readouterr().out == ""


def test_a_print_that_waits_keeps_nobody_else_waiting(clients, monkeypatch):
    door, waiting = threading.Event(), []

    def stuck(line):
        waiting.append(line)
        door.wait(10)

    monkeypatch.setattr(client_manager, "print", stuck, raising=False)
    first, second = newcomer(0), newcomer(1)
    clients.register(first)
    assert clients.wait_for(1, 10)
    clients.register(second)
    assert clients.wait_for(2, 10)
    leaving = threading.Thread(target=clients.unregister, args=(first,))
    leaving.start()
    wait_until(lambda: len(waiting) == 3)
    assert list(clients.all()) == ["connection of 1"]
    door.set()
    leaving.join(10)


def test_a_connection_that_ends_during_the_greeting_is_never_there(clients, capsys):
    ghost = FakeClient("ghost", get_properties=lambda ins: 1 / 0)
    clients._greet(ghost)
    assert clients.all() == {} and capsys.readouterr().out == ""


def test_a_connection_that_ends_during_a_refusal_does_no_harm(clients):
    arrive(clients, newcomer(0))
    stranger = newcomer(1, dataset="cifar10")
    clients.register(stranger)  # the refusal raises in FakeClient, as it does at the end of a connection
    wait_until(lambda: stranger.refusal)
    clients._send_away(FakeClient("x", get_properties=lambda ins: 1 / 0), identity(2), Refused("go"))
    assert clients.num_available() == 1


def test_newcomers_are_asked_at_the_same_time(clients):
    together = threading.Barrier(3)  # breaks, if they are asked one after the other

    def answer(ins):
        together.wait(10)
        return GetPropertiesRes(OK, {})

    for name in "abc":
        clients.register(FakeClient(name, get_properties=answer))
    assert clients.wait_for(3, 10)


def test_every_newcomer_gets_a_question_of_its_own(clients):
    crowd = [FakeClient(name, get_properties=lambda ins: GetPropertiesRes(OK, {})) for name in "abc"]
    arrive(clients, *crowd)
    questions = [ins.config["nonce"] for client in crowd for _, ins, *_ in client.calls]
    assert len(set(questions)) == 3
    assert all(timeout and timeout > 0 for client in crowd for _, _, timeout, _ in client.calls)


def test_waiting_for_clients(clients):
    assert clients.wait_for(0, 0.01)
    started = time.monotonic()
    assert not clients.wait_for(1, 0.02)
    assert 0.02 <= time.monotonic() - started < 2
    threading.Timer(0.02, clients.register, [newcomer(0)]).start()
    assert clients.wait_for(1, 10)
    assert time.monotonic() - started < 5


def test_a_client_at_work_is_not_available_and_the_end_of_its_work_is_noticed(clients):
    worker = newcomer(0)
    arrive(clients, worker, newcomer(1))
    clients.start_work(worker, "fit")
    assert list(clients.all()) == ["connection of 1"] and clients.num_available() == 1
    assert list(clients.by_cid()) == [1]
    assert clients.sample(2) == [clients.all()["connection of 1"]]
    threading.Timer(0.02, clients.end_work, [worker]).start()
    started = time.monotonic()
    assert clients.wait_for(2, 10)
    assert time.monotonic() - started < 5
    assert set(clients.all()) == {"connection of 0", "connection of 1"}


def test_a_client_that_left_at_work_is_not_available_again(clients):
    worker = newcomer(0)
    arrive(clients, worker)
    clients.start_work(worker, "fit")
    clients.unregister(worker)
    clients.end_work(worker)
    assert clients.all() == {}


def test_samples(clients):
    crowd = [learner(cid) for cid in range(20)]
    arrive(clients, *crowd)
    samples = [clients.sample(5) for _ in range(10)]
    for sample in samples:
        assert len(set(sample)) == 5 and set(sample) <= set(crowd)
    assert len({frozenset(sample) for sample in samples}) > 1  # the same one ten times: 1 in 10**37
    assert set(clients.sample(21, min_num_clients=100)) == set(crowd)  # does not wait
    assert clients.sample(0) == []

    class Even(Criterion):
        def select(self, client):
            return identity_of(client).cid % 2 == 0

    assert {identity_of(client).cid for client in clients.sample(99, criterion=Even())} == set(range(0, 20, 2))


def test_what_strangers_make_the_server_remember_has_a_bound(clients, capsys):
    first = newcomer(1, dataset="cifar10")
    arrive(clients, newcomer(0), first)
    crowd = [newcomer(cid, dataset="cifar10") for cid in range(2, 102)]
    for stranger in crowd:
        clients.register(stranger)
    wait_until(lambda: all(stranger.refusal for stranger in crowd))
    arrive(clients, newcomer(1, dataset="cifar10"))
    assert capsys.readouterr().out.count("client 1 on pi1 is refused") == 2  # it had been forgotten


def test_identities_survive_the_way_through_flowers_properties(clients):
    known = replace(identity(0), device="a board, with\ttricks", script="x" * 1000)
    arrive(clients, client := FakeClient("one", known))
    assert identity_of(client).device == "a board, with tricks"
    assert identity_of(client).script == "x" * 300


def tasks(clients: DeviceClientManager) -> dict[int, str]:
    return {activity.identity.cid: activity.task for activity in clients.activities() if activity.identity}


def test_what_each_client_does(clients):
    first, second = (FakeClient(f"connection of {cid}", identity(cid)) for cid in (1, 0))
    arrive(clients, first, second)
    assert tasks(clients) == {0: "", 1: ""}
    clients.start_work(first, "fit")
    assert tasks(clients) == {0: "", 1: "fit"}
    clients.unregister(first)
    assert tasks(clients) == {0: "", 1: "lost"}
    clients.end_work(first)  # its thread notices later
    assert tasks(clients) == {0: "", 1: "lost"}
    again = FakeClient("newer connection", identity(1))
    arrive(clients, again)
    assert tasks(clients) == {0: "", 1: ""}
    clients.start_work(again, "evaluate")
    clients.end_work(first)
    assert tasks(clients) == {0: "", 1: "evaluate"}
    newest = FakeClient("newest connection", identity(1))
    arrive(clients, newest)  # before the end of the old one is noticed
    clients.unregister(again)
    assert tasks(clients) == {0: "", 1: ""}


def test_plain_flower_clients_do_not_come_back(clients):
    plain = FakeClient("ipv4:127.0.0.1:50000")
    arrive(clients, plain)
    assert [activity.task for activity in clients.activities()] == [""]
    clients.unregister(plain)
    assert clients.activities() == []

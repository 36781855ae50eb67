"""The door of the server: who is admitted, who is refused and what it hears, who is available."""

from __future__ import annotations

import threading

from federation.server.client_manager import DeviceClientManager
from federation.wire.handshake import Refused, identity_of, name_of, send_away

import pytest
from fakes import OK, TOKEN, FakeClient, arrive, identity, learner, wait_until
from flwr.common import GetPropertiesRes
from flwr.server.criterion import Criterion


@pytest.fixture
def clients() -> DeviceClientManager:
    return DeviceClientManager()


def newcomer(cid: int, connection: str = "", **changes) -> FakeClient:
    return FakeClient(connection or f"connection of {cid}", identity(cid, **changes))


@pytest.mark.parametrize("quiet", [False, True])
def test_newcomers_are_admitted(capsys, quiet):
    clients = DeviceClientManager(quiet=quiet)
    first, second = newcomer(3), newcomer(1, device="a board, with\ttricks")
    arrive(clients, first, second)
    assert clients.all() == {"connection of 3": first, "connection of 1": second}
    assert identity_of(first) == identity(3) and first.properties["cid"] == 3
    assert identity_of(second).device == "a board, with tricks"
    joined = "client 3 on pi3 has joined, 1 now\nclient 1 on a board, with tricks has joined, 2 now\n"
    assert capsys.readouterr().out == ("" if quiet else joined)
    clients.unregister(first)
    assert clients.all() == {"connection of 1": second}
    assert capsys.readouterr().out == ("" if quiet else "client 3 on pi3 has left, 1 now\n")


def test_plain_flower_clients_are_admitted_and_nobody_has_to_fit_them(clients, capsys):
    plain = FakeClient("ipv4:127.0.0.1:50000")
    arrive(clients, plain, newcomer(7))
    assert identity_of(plain) is None and name_of(plain) == "plain Flower client ipv4:127"
    assert "plain Flower client ipv4:127 has joined, 1 now" in capsys.readouterr().out
    assert clients.member == identity(7) and list(clients.by_cid()) == [7]


def test_who_does_not_fit_is_refused_for_good(clients, capsys):
    stranger = newcomer(1, dataset="cifar10")
    arrive(clients, newcomer(0), stranger)
    assert list(clients.all()) == ["connection of 0"] and stranger.properties == {}
    reason = "it has cifar10, this federation mnist: start it with --mnist"
    assert stranger.refusal == {"refused": f"refused by the server: {reason}", "again": False}
    assert capsys.readouterr().out.endswith(f"client 1 on pi1 is refused: {reason}\n")


def test_who_has_not_the_token_is_refused(capsys):
    clients = DeviceClientManager(TOKEN)
    stranger, plain = FakeClient("stranger", identity(1, dataset="cifar10")), FakeClient("plain")
    arrive(clients, stranger, plain, FakeClient("friend", identity(0), TOKEN))
    assert list(clients.all()) == ["friend"]
    assert clients.member == identity(0)  # not the stranger
    assert "it has no token" in stranger.refusal["refused"] and stranger.refusal["again"] is False
    assert [task for task, *_ in plain.calls] == ["reconnect"]  # all that it understands
    assert "a plain Flower client is refused: it has no token" in capsys.readouterr().out


def test_a_cid_that_is_taken_may_be_free_later(clients, capsys):
    rivals = [newcomer(5, "rival", instance="another start of 5", device="pi9") for _ in range(3)]
    arrive(clients, newcomer(5), *rivals[:2])
    assert list(clients.all()) == ["connection of 5"]
    reason = "its --cid is taken by client 5 on pi5"
    assert rivals[0].refusal == {"refused": f"refused by the server: {reason}", "again": True}
    assert capsys.readouterr().out.count(f"client 5 on pi9 is refused: {reason}") == 1  # although it tried twice
    clients.unregister(clients.all()["connection of 5"])
    arrive(clients, rivals[2])
    assert list(clients.all().values()) == [rivals[2]]


def test_a_client_that_comes_back_takes_the_place_of_its_dead_connection(clients, capsys):
    old, new = newcomer(5, "old"), newcomer(5, "new")
    arrive(clients, newcomer(4), old, newcomer(5, "misfit", dataset="cifar10"))
    assert clients.all()["old"] is old
    arrive(clients, new)
    assert set(clients.all()) == {"connection of 4", "new"} and clients.by_cid()[5] is new
    assert capsys.readouterr().out.endswith("client 5 on pi5 has joined, 2 now\n")
    clients.unregister(old)  # Flower notices in the end
    assert set(clients.all()) == {"connection of 4", "new"} and capsys.readouterr().out == ""


@pytest.mark.parametrize("until", ["all have left", "there is a model", "resumed"])
def test_newcomers_must_fit_the_first_one(until):
    clients = DeviceClientManager(None, identity(0) if until == "resumed" else None)
    first, second = newcomer(0), newcomer(1)
    arrive(clients, first, second)
    clients.is_fixed = clients.is_fixed or until == "there is a model"
    clients.unregister(first)
    arrive(clients, third := newcomer(2, dataset="cifar10"))
    assert third.refusal is not None and clients.member == identity(0)
    clients.unregister(second)
    arrive(clients, again := newcomer(2, "again", dataset="cifar10"))
    assert (again.refusal is None) == (until == "all have left")
    assert clients.member == (identity(2, dataset="cifar10") if until == "all have left" else identity(0))


def test_a_connection_that_ends_at_any_moment_does_no_harm(clients, capsys):
    door = threading.Event()
    ghost = FakeClient("ghost", get_properties=lambda ins: door.wait(10) and GetPropertiesRes(OK, {}))
    others = set(threading.enumerate())
    clients.register(ghost)
    wait_until(lambda: ghost.calls)
    (greeting,) = set(threading.enumerate()) - others
    clients.unregister(ghost)  # before its answer
    door.set()
    greeting.join(10)
    gone = FakeClient("gone", get_properties=lambda ins: 1 / 0)
    clients._greet(gone)
    send_away(gone, identity(2), Refused("go"), 1)
    assert clients.all() == {} and capsys.readouterr().out == ""


def test_newcomers_are_asked_at_the_same_time_each_with_a_nonce_of_its_own(clients):
    together = threading.Barrier(3)  # breaks, if they are asked one after the other
    crowd = [FakeClient(n, get_properties=lambda _: together.wait(10) + 1 and GetPropertiesRes(OK, {})) for n in "abc"]
    for client in crowd:
        clients.register(client)
    assert clients.wait_for(3, 10)
    assert len({ins.config["nonce"] for client in crowd for _, ins, *_ in client.calls}) == 3
    assert all(timeout and timeout > 0 for client in crowd for _, _, timeout, _ in client.calls)


def test_a_client_at_work_is_not_available_and_the_end_of_its_work_is_noticed(clients):
    worker, other = newcomer(0), newcomer(1)
    arrive(clients, worker, other)
    clients.start_work(worker, "fit")
    assert list(clients.all()) == ["connection of 1"] and clients.num_available() == 1
    assert list(clients.by_cid()) == [1] and clients.sample(2) == [other]
    threading.Timer(0.02, clients.end_work, [worker]).start()
    assert clients.wait_for(2, 10)
    clients.start_work(worker, "fit")
    clients.unregister(worker)
    clients.end_work(worker)  # it has left in the meantime
    assert list(clients.all()) == ["connection of 1"]


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


def test_who_is_sampled_depends_on_the_seed_and_not_on_who_came_first():
    def sampled(*order: int, seed: int = 7) -> list[str]:
        clients = DeviceClientManager()
        arrive(clients, *[FakeClient("plain"), *[learner(cid) for cid in order]])
        clients.random.seed(seed)
        return [client.cid for client in clients.sample(4)]

    first = sampled(*range(12))
    assert sampled(5, 2, 11, 7, 0, 10, 1, 6, 4, 9, 8, 3) == first
    assert sampled(*range(12), seed=8) != first


def tasks(clients: DeviceClientManager) -> dict[int, str]:
    return {activity.identity.cid: activity.task for activity in clients.activities.all() if activity.identity}


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
    assert [activity.task for activity in clients.activities.all()] == [""]
    clients.unregister(plain)
    assert clients.activities.all() == []

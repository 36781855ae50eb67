"""What a server tells of clients at work where there is no terminal; who does what, by the client manager."""

from __future__ import annotations

import re
import threading
import time

from federation.results.report import Report
from federation.server import client_manager, watch
from federation.server.client_manager import DeviceClientManager
from federation.server.watch import watched

import pytest
from fakes import FakeClient, arrive, identity, wait_until
from test_settings import server_settings


@pytest.fixture
def clients() -> DeviceClientManager:
    return DeviceClientManager(token=None, member=None)


def tasks(clients: DeviceClientManager) -> dict[int, str]:
    return {activity.identity.cid: activity.task for activity in clients.activities() if activity.identity}


def test_who_is_still_at_work_is_told_once_a_minute(clients, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watch, "INTERVAL", 0.3)
    report = Report(tmp_path)
    members = [FakeClient(f"connection of {cid}", identity(cid)) for cid in range(9)]
    arrive(clients, *members)
    report.start_round(4)
    with watched(report, clients, server_settings(monkeypatch)):
        clients.start_work(members[0], "evaluate")
        time.sleep(0.75)
        for client in members[1:]:
            clients.start_work(client, "fit")
        time.sleep(0.1)
        for client in members[2:3]:
            clients.end_work(client)
        time.sleep(0.75)
        for client in members:
            clients.end_work(client)
    told = [line for line in capsys.readouterr().out.splitlines() if "joined" not in line]
    told = [re.sub(r", \d s\)", ")", line) for line in told]
    alone = "round 4 still waits for client 0 on pi0 (evaluating)"
    names = ", ".join(f"client {cid} on pi{cid} (training)" for cid in (1, 3, 4, 5))
    assert told[0] == alone and told[-1] == f"{alone}, {names}, 3 more"
    assert set(told) == {told[0], told[-1]} and len(told) <= 6
    time.sleep(0.4)
    assert capsys.readouterr().out == ""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("live")]


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


def test_refusals(clients, monkeypatch):
    monkeypatch.setattr(client_manager, "MOST_REFUSALS", 3)
    arrive(clients, FakeClient("a", identity(0)))
    for number in (1, 2, 3, 4, 2):
        started = time.monotonic()
        arrive(clients, FakeClient(f"connection {number} at {started}", identity(number, dataset="cifar10")))
    wait_until(lambda: len(clients.refusals()) == 3)
    lines = clients.refusals()
    assert [line.split(" on ")[0] for line in lines] == ["client 3", "client 4", "client 2"]
    assert lines[[*lines][-1]] >= started

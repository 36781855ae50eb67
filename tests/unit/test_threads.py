"""The number of threads: what was asked for, or a share of the cores, counted among the processes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

from federation.client import threads
from federation.client.threads import Threads, count_clients

import psutil
import pytest


@pytest.fixture
def machine(monkeypatch):
    """A machine with four cores, and `clients` clients on it."""
    machine = SimpleNamespace(clients=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads, "count_clients", lambda: machine.clients)
    return machine


def test_clients_share_the_cores_also_with_those_that_come_later(machine, capsys):
    set_to: list[int] = []
    chosen = Threads()
    chosen.share_cores(set_to.append, most=4)
    for machine.clients in (1, 2, 2, 3, 5, 1):
        chosen.adapt()
    Threads().share_cores(set_to.append, most=1)  # with a GPU
    assert set_to == [4, 2, 1, 4, 1]
    assert capsys.readouterr().out == "".join(f"training on {number} of 4 cores\n" for number in set_to)


def test_a_number_that_was_asked_for_is_taken_once(machine, capsys):
    set_to: list[int] = []
    chosen = Threads(6)
    chosen.share_cores(set_to.append, most=4)
    machine.clients = 4
    chosen.adapt()
    assert set_to == [6] and capsys.readouterr().out == "training on 6 of 4 cores\n"


def test_a_number_that_is_final_stays(machine, capsys):
    """As TensorFlow's, once it has computed anything."""
    chosen = Threads()
    chosen.share_cores(lambda number: None, most=4)
    capsys.readouterr()

    def final(number):
        raise RuntimeError("cannot be modified after initialization")

    chosen.set_threads, machine.clients = final, 2
    chosen.adapt()
    assert chosen.current == 4 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("command", "is_client"),
    [
        (["python", "client_pytorch.py", "--cid", "0"], True),
        (["/home/pi/.venv/bin/python3.11", "-u", "./client_tf.py", "--cid=0"], True),
        (["/usr/bin/Python", "-X", "dev", "/opt/b\udcfcro/client_pytorch.py"], True),
        (["/x/bin/python", "/x/bin/flower-supernode", "--insecure"], True),
        (["python", "client_mine.py", "--cid", "0"], True),  # a copy
        (["python", "-c", "pass"], False),
        (["python", "server.py", "--evaluate_with", "pytorch"], False),
        (["python", "-m", "pytest", "tests/test_clients.py"], False),
        (["vim", "client_pytorch.py"], False),
        (["sh", "-c", "python client_tf.py --cid 0"], False),
        ([], False),  # the system's own
        (None, False),  # somebody's who does not show it
    ],
)
def test_what_counts_as_a_client(monkeypatch, command, is_client):
    certain = ["python", "client_tf.py"]
    processes = [SimpleNamespace(info={"cmdline": each}) for each in (certain, command)]
    monkeypatch.setattr(psutil, "process_iter", lambda attributes: processes)
    assert count_clients() == 1 + is_client


def test_real_processes_are_counted(tmp_path, monkeypatch):
    script = tmp_path / "client_of_this_test.py"
    script.write_text("input()")
    ours = [subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE) for _ in range(3)]
    pids, all_processes = {each.pid for each in ours}, psutil.process_iter
    monkeypatch.setattr(
        psutil, "process_iter", lambda attributes: [p for p in all_processes(attributes) if p.pid in pids]
    )
    assert count_clients() == 3
    for each in ours:
        each.communicate(b"\n")
    assert count_clients() == 1

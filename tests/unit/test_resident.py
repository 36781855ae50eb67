"""A client that stays loaded: who may reach it, what it answers to whom, and when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from multiprocessing.connection import Client, Connection
from pathlib import Path
from types import SimpleNamespace

from federation.client import resident
from federation.wire.handshake import Refused
from federation.wire.messages import read_answer, write_question

import pytest
from fakes import OK, TASKS, identity, wait_until
from processes import PROMPTLY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows' Python has no Unix sockets")
EXPECTED = {"dataset": "mnist", "alpha": "", "cid": 3, "num_clients": 50}


def question(task: str) -> bytes:
    return write_question(task, TASKS[task][0]).SerializeToString()


def connect(path: Path) -> Connection:
    """Connect once somebody listens, which is a moment after the file is there."""
    connections = []

    def connect() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connections.append(Client(str(path), "AF_UNIX"))
        return bool(connections)

    wait_until(connect)
    return connections[0]


def ask(path: Path, task: str, **expected: object) -> object:
    """What the client answers to a question of a run that expects this of it."""
    with connect(path) as connection:
        connection.send_bytes(json.dumps({**EXPECTED, **expected}).encode())
        connection.send_bytes(question(task))
        assert connection.poll(10)
        return read_answer(task, connection.recv_bytes())


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "client.sock"


@pytest.fixture
def asked() -> list:
    """What the client was asked."""
    return []


@pytest.fixture
def loaded(path, asked, monkeypatch):
    """A client that is loaded and answers at `path`; at the end of the test, it is told to end."""
    monkeypatch.delenv(resident.SUPERNODE, raising=False)

    def answer(task, instruction):
        if task == "get_parameters":
            raise SystemExit
        asked.append((task, instruction))
        return TASKS[task][1]

    client = SimpleNamespace(identity=identity(3), answer=answer)

    def serve():
        with contextlib.suppress(SystemExit):
            resident.answer_node(path, client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    connect(path).close()
    yield client
    with connect(path) as connection:
        connection.send_bytes(b"{}")
        connection.send_bytes(question("get_parameters"))
        thread.join(10)
    assert not thread.is_alive()


def test_whoever_connects_gets_an_answer(loaded, path, asked):
    for task in ("get_properties", "fit", "evaluate"):
        assert ask(path, task) == TASKS[task][1]
    assert asked == [(task, TASKS[task][0]) for task in ("get_properties", "fit", "evaluate")]


def test_nobody_else_may_connect(loaded, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_are_made_as_before(loaded, tmp_path):
    """Who may read the socket is nobody's business but the socket's."""
    before = os.umask(0o022)
    os.umask(before)
    (tmp_path / "results").touch()
    assert stat.S_IMODE((tmp_path / "results").stat().st_mode) == 0o666 & ~before


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_second_client_is_refused(loaded, path, is_busy):
    first = connect(path) if is_busy else None  # whose question the client waits for
    with pytest.raises(SystemExit) as end:
        resident._listen(path)
    assert end.value.code == f"another client answers at {path}"
    if first is not None:
        first.close()
    assert ask(path, "fit") == TASKS["fit"][1]  # the first one still does


def test_the_socket_of_a_client_that_was_killed_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as killed:  # which leaves its file behind
        killed.bind(str(path))
        killed.listen()
    with pytest.raises(ConnectionRefusedError):
        Client(str(path), "AF_UNIX")
    with resident._listen(path), Client(str(path), "AF_UNIX"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_somebodys_file_is_not_replaced(path):
    path.write_text("my results")
    with pytest.raises(SystemExit) as end:
        resident._listen(path)
    assert end.value.code == f"cannot listen at {path}: Address already in use"
    assert path.read_text() == "my results"


@pytest.mark.parametrize("kind", ["no folder", "too long"])
def test_where_nobody_can_listen(tmp_path, kind):
    path = tmp_path / "nowhere/client.sock" if kind == "no folder" else tmp_path / ("x" * 200)
    before = os.umask(0o022)
    os.umask(before)
    with pytest.raises(SystemExit) as end:
        resident._listen(path)
    reason = {"no folder": "No such file or directory", "too long": "AF_UNIX path too long"}[kind]
    assert end.value.code == f"cannot listen at {path}: {reason}"
    assert os.umask(before) == before


def leave_at_once(connection: Connection) -> None:
    pass


def leave_before_the_question(connection: Connection) -> None:
    connection.send_bytes(json.dumps(EXPECTED).encode())


def leave_before_the_answer(connection: Connection) -> None:
    leave_before_the_question(connection)
    connection.send_bytes(question("fit"))


def leave_in_a_word(connection: Connection) -> None:
    os.write(connection.fileno(), b"\0\0\1\0half")


@pytest.mark.parametrize("leave", [leave_at_once, leave_before_the_question, leave_before_the_answer, leave_in_a_word])
def test_a_connection_that_ends_early_harms_nobody(loaded, path, leave):
    for _ in range(3):
        with connect(path) as connection:
            leave(connection)
    assert ask(path, "evaluate") == TASKS["evaluate"][1]


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        (
            {"dataset": "cifar10"},
            "the client that is loaded has dataset mnist, alpha none, cid 3, num_clients 50, "
            "the run wants dataset cifar10, alpha none, cid 3, num_clients 50",
        ),
        ({"alpha": "0.3"}, "the run wants dataset mnist, alpha 0.3, cid 3, num_clients 50"),
        ({"cid": 4}, "the run wants dataset mnist, alpha none, cid 4, num_clients 50"),
    ],
)
def test_a_run_that_expects_another_client_is_told(loaded, path, asked, capsys, expected, sentence):
    status = ask(path, "fit", **expected).status
    assert status.code != OK.code and sentence in status.message
    assert asked == []
    assert f"refused: {status.message}\n" in capsys.readouterr().out
    assert ask(path, "fit") == TASKS["fit"][1]


def test_the_first_client_has_number_0(loaded, path):
    status = ask(path, "fit", cid=0).status
    assert status.message.endswith("the run wants dataset mnist, alpha none, cid 0, num_clients 50")


def test_a_refusal_is_no_end(loaded, path, capsys):
    answer = loaded.answer

    def refuse(task, instruction):
        raise Refused("refused by the server: its --cid is taken")

    loaded.answer = refuse
    assert ask(path, "get_properties").status.message == "refused by the server: its --cid is taken"
    loaded.answer = answer
    assert ask(path, "fit") == TASKS["fit"][1]


SERVE = """
import sys; sys.path.insert(0, "tests/unit")
from pathlib import Path; from types import SimpleNamespace
from fakes import TASKS, identity
from federation.client.resident import answer_node
answer_node(Path(sys.argv[1]), SimpleNamespace(identity=identity(3), answer=lambda task, _: TASKS[task][1]))
"""


@pytest.fixture
def supernode():
    """A process that stands for a SuperNode."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def started(processes, path, supernode):
    """A client that was started for the SuperNode."""
    process = processes.start("-c", SERVE, path, env={resident.SUPERNODE: f"{supernode.pid}"})
    process.wait_for("loaded, answers at", PROMPTLY)
    return process


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_client_ends_with_its_supernode(started, supernode, path, is_noticed):
    """Whether or not who has started the SuperNode takes note of its end."""
    assert ask(path, "fit") == TASKS["fit"][1]
    assert started.popen.poll() is None
    supernode.kill()
    if is_noticed:
        supernode.wait()
    assert started.exit_code(PROMPTLY) == 0
    assert "Traceback" not in started.output


@pytest.mark.parametrize("expected", [{"dataset": "cifar10"}, {"code": "/another/version"}])
def test_a_client_that_its_supernode_can_start_anew_ends_if_the_run_expects_another(started, path, expected):
    with pytest.raises((EOFError, ConnectionResetError)):
        ask(path, "fit", **expected)
    assert started.exit_code(PROMPTLY) == 0
    assert "Traceback" not in started.output

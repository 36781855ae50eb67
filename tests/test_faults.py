"""What a federation has to survive. The numbers of the rows are those in conftest.py."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

from federation.results import checkpoint, run_file
from federation.results.tables import read_table
from federation.server.dispatch import PATIENCE
from federation.wire.handshake import Identity, answer

import grpc
import numpy as np
import pytest
from conftest import (
    FLOWER_1_25,
    PY38_PYTORCH,
    PY38_TF,
    Variant,
    needs_flower_1_25,
    needs_py38_pytorch,
    needs_py38_tf,
)
from faulty_client import numbers
from flwr.common import GetPropertiesIns, serde
from flwr.proto import transport_pb2_grpc
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage
from processes import DEADLINE, PROMPTLY, ROOT
from raw_client import RawClient, nonce_of, properties, refusal_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ROUND_1 = "round 1: 2 results and 0 failures"
SOMEBODY = Identity(7, "pi", "y", "script.py", "cifar10", 50, "x", alpha="", classes="", versions="", keeps_model=True)


def trained(model: list[np.ndarray], cid: int, server_round: int, half_precision: bool) -> list[np.ndarray]:
    """What the server has of the fit of client `cid`."""
    arrays = []
    for array in model:
        is_rounded = half_precision and array.ndim > 1
        received = array.astype(np.float16).astype(np.float32) if is_rounded else array
        new = received + numbers(cid, server_round, array.size).reshape(array.shape)
        arrays.append(array + (new - received).astype(np.float16) if is_rounded else new)
    return arrays


def expected_model(
    rounds: int, cids=(0, 1), size: int | list[int] = 6, half_precision: bool = False, absent: dict | None = None
) -> list[np.ndarray]:
    """What devices with these cids make of their zeros: client `cid` has cid + 1 examples.

    `absent` are those whose result did not count, by round.
    """
    model = [np.zeros(size, np.float32), np.zeros((2, 3), np.float32)]
    for server_round in range(1, rounds + 1):
        present = [cid for cid in cids if cid not in (absent or {}).get(server_round, ())]
        total = sum(cid + 1 for cid in present)
        results = [trained(model, cid, server_round, half_precision) for cid in present]
        model = [
            (sum(np.float64(cid + 1) * array for cid, array in zip(present, arrays)) / total).astype(np.float32)
            for arrays in zip(*results)
        ]
    return model


def assert_model(results: Path, rounds: int, **expected) -> None:
    """The checkpoint is that of an undisturbed run of as many rounds, bit for bit."""
    saved = checkpoint.load(results)
    assert saved.round == rounds
    half_precision = run_file.read(results)["starts"][-1]["flags"]["half_precision"]
    wanted_model = expected_model(rounds, half_precision=half_precision, **expected)
    for array, wanted in zip(saved.model, wanted_model, strict=True):
        assert array.dtype == wanted.dtype and array.tobytes() == wanted.tobytes()


def rounds_of(results: Path) -> list[str]:
    return [row["round"] for row in read_table(results / "rounds.csv")]


@pytest.mark.fault("killed client")
def test_a_client_that_is_killed(start_device, start_server, results):
    server = start_server("--rounds", 1, "--min_num_clients", 3)
    clients = [start_device(cid, sleep=3) for cid in (0, 1)]
    server.wait_for("has joined, 2 now")
    clients[1].popen.kill()  # while it waits
    server.wait_for("has left, 1 now", timeout=PROMPTLY)
    clients[1:] = [start_device(cid, sleep=3) for cid in (1, 2)]
    for client in clients:
        client.wait_for("fit 1 begins")
    clients[2].popen.kill()
    server.wait_for("has left, 2 now", timeout=PROMPTLY)
    assert server.exit_code() == 0
    assert "round 1: fit by client 2 on" in server.output
    assert "round 1: 2 results and 1 failures" in server.output
    assert_model(results, 1)


@pytest.mark.fault("error in a fit")
@pytest.mark.fault("bad result")
def test_a_fit_that_raises_and_one_with_a_bad_result(start_device, start_server, results):
    server = start_server("--rounds", 3)
    clients = [start_device(0), start_device(1, fits={1: "nan", 2: "raise"})]
    assert server.exit_code() == 0
    assert [client.exit_code() for client in clients] == [0, 0]
    assert "RuntimeError: the disk is on fire" in clients[1].output  # with its traceback
    for server_round, reason in ((1, "array 0 contains NaN or infinity"), (2, "RuntimeError: the disk is on fire")):
        line = next(line for line in server.output.splitlines() if line.endswith(f"does not count: {reason}"))
        assert line.startswith(f"round {server_round}: fit by client 1 on ")
        assert f"round {server_round}: 1 results and 1 failures" in server.output
    assert "round 3: 2 results and 0 failures" in server.output
    assert_model(results, 3, absent={1: [1], 2: [1]})


@pytest.mark.fault("early client")
@pytest.mark.fault("replacement")
@pytest.mark.fault("too few clients")
def test_a_replacement_joins_in_time_and_another_does_not(start_device, start_server, results):
    clients = [start_device(cid, sleep=1) for cid in (0, 1)]
    for client in clients:
        client.wait_for("no server at")
    server = start_server("--rounds", 50, "--wait_timeout", 15)
    server.wait_for(ROUND_1)
    assert all(client.output.count("no server at") == 1 for client in clients)
    clients[1].popen.kill()
    server.wait_for("waits for 2 clients: 1 missing")
    replacement = start_device(2, sleep=1)
    replacement.wait_for("begins")
    replacement.popen.kill()
    assert server.exit_code(PATIENCE + 15 + PROMPTLY) == 1
    assert "only 1 of 2 clients were connected after 15 s (--wait_timeout)" in server.output
    assert "Traceback" not in server.output
    saved = checkpoint.load(results)
    assert saved.round >= 2 and all(np.isfinite(array).all() for array in saved.model)
    clients[0].wait_for("trying again")


@pytest.mark.fault("frozen client")
def test_a_client_that_is_frozen_while_it_gets_a_large_model(start_device, start_server, results):
    size = 5_000_000  # 20 MB, more than the kernel takes in the name of a process that does not read
    server = start_server("--rounds", 2, "--round_timeout", 15, "--min_num_clients", 3)
    clients = [start_device(cid, size=size) for cid in (0, 1)]
    server.wait_for("has joined, 2 now")
    clients[1].popen.send_signal(signal.SIGSTOP)
    clients.append(start_device(2, size=size))
    server.wait_for("has joined, 3 now")
    server.wait_for("round 1: 2 results and")
    assert "does not count: no answer in time" in server.output
    server.wait_for("round 2 waits for 3 clients: 1 missing")
    clients[1].popen.send_signal(signal.SIGCONT)
    assert server.exit_code() == 0
    assert "round 2: 3 results and 0 failures" in server.output
    assert "Traceback" not in "".join(process.output for process in (server, *clients))


@pytest.mark.fault("late result")
def test_a_result_that_comes_after_the_timeout(start_device, start_server, results):
    server = start_server("--rounds", 3, "--round_timeout", 6)
    clients = [start_device(0), start_device(1, fits={2: "late"})]
    assert server.exit_code() == 0
    assert "round 2: fit by client 1 on" in server.output and "does not count: no answer in time" in server.output
    assert "round 2: 1 results and 1 failures" in server.output
    assert "round 3: 2 results and 0 failures" in server.output
    assert [client.exit_code() for client in clients] == [0, 0]
    assert "lost the server" in clients[1].output and "Traceback" not in clients[1].output
    assert_model(results, 3, absent={2: [1]})


def wait_until_it_writes(results: Path) -> None:
    """Wait until there is a part of a checkpoint."""
    deadline = time.monotonic() + DEADLINE
    while not list(results.glob(".model.npz.*")):
        assert time.monotonic() < deadline


def kill_at(moment: str, server, clients, results: Path) -> None:
    """Wait for a moment in the run of three rounds and kill the server."""
    if moment == "before round 1":
        server.wait_for("has joined, 1 now")
    elif moment == "in a fit":
        clients[0].wait_for("fit 2 begins")
        clients[1].wait_for("fit 2 begins")
    else:  # a model is on disk, and not yet evaluated
        deadline = time.monotonic() + 60
        while checkpoint.load(results).round < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    server.popen.kill()
    server.popen.wait()


@pytest.mark.fault("killed server")
@pytest.mark.parametrize(
    ("moment", "faults"),
    [
        ("before round 1", {}),
        ("in a fit", {"sleep": 2}),
        ("between fit and evaluate", {"evaluate_sleep": 4}),
    ],
)
def test_a_server_that_is_killed_and_resumed(start_device, start_server, results, moment, faults):
    server = start_server("--rounds", 3)
    clients = [start_device(0, **faults)]
    if moment == "before round 1":
        kill_at(moment, server, clients, results)
        clients.append(start_device(1, **faults))
    else:
        clients.append(start_device(1, **faults))
        kill_at(moment, server, clients, results)
    committed = checkpoint.load(results).round
    server = start_server("--rounds", 3, "--resume", results)
    server.wait_for(f"going on after round {committed}\n")
    server.wait_for("has joined, 2 now")
    assert server.exit_code() == 0
    assert [client.exit_code() for client in clients] == [0, 0]
    assert all("Traceback" not in process.output for process in (server, *clients))
    assert_model(results, 3)
    assert rounds_of(results) == ["1", "2", "3"]


@pytest.mark.fault("half a checkpoint")
def test_a_server_killed_while_it_writes_a_checkpoint(start_device, start_server, results):
    size = 10_000_000  # 40 MB, so that there is time to see it
    server = start_server("--rounds", 50)
    clients = [start_device(cid, size=size) for cid in (0, 1)]
    for _ in range(2):
        server.wait_for("results and 0 failures")
        committed = checkpoint.load(results).round
        wait_until_it_writes(results)
        server.popen.kill()
        server.popen.wait()
        leftovers = list(results.glob(".*"))
        saved = checkpoint.load(results)
        assert saved.round in (committed, committed + 1) and np.isfinite(saved.model[0]).all()
        server = start_server("--rounds", 50, "--resume", results)
        server.wait_for(f"going on after round {saved.round}\n")
        assert not any(leftover.exists() for leftover in leftovers)
    assert clients[0].popen.poll() is None


@pytest.mark.fault("half a checkpoint")
@as_root
def test_a_full_disk(start_device, start, address, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk], check=True)
    try:
        results = disk / "results"
        server = start("server.py", "--server_address", address, "--results_dir", results, "--rounds", 100)
        server.wait_for("clients connect")
        for cid in (0, 1):
            start_device(cid, size=100_000)  # 400 kB: the second one finds no room beside the first
        server.wait_for(ROUND_1)
        (disk / "something else").write_bytes(bytes(300_000))
        assert server.exit_code() == 1
        assert "No space left on device" in server.output and "Traceback" not in server.output
        before = checkpoint.load(results).round
        assert before >= 1
        (disk / "something else").unlink()
        assert not list(results.glob(".*"))  # no half files are left
        server = start("server.py", "--server_address", address, "--resume", results, "--rounds", before + 1)
        assert server.exit_code() == 0
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.fault("tables")
def test_tables_that_cannot_be_written_for_a_while(start_device, start_server, results):
    server = start_server("--rounds", 4)
    for cid in (0, 1):
        start_device(cid, sleep=2)
    server.wait_for(ROUND_1)
    tables = [results / name for name in ("rounds.csv", "clients.csv")]
    for table in tables:  # no file can take the place of a folder, as none can that of a table that is open in Excel
        table.unlink()
        table.mkdir()
    server.wait_for("round 2: 2 results and 0 failures")
    for table in tables:
        assert f"cannot write {table} (Is a directory): its last rounds are missing until a later" in server.output
        table.rmdir()
    assert server.exit_code() == 0
    assert rounds_of(results) == ["1", "2", "3", "4"]
    assert [row["round"] for row in read_table(results / "clients.csv")] == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert_model(results, 4)
    assert not list(results.glob(".*"))


@pytest.mark.fault("tables")
def test_files_of_the_report_that_cannot_be_written_at_all(start_device, start_server, results):
    server = start_server("--rounds", 2)
    for name in ("rounds.csv", "clients.csv", "history.png"):
        (results / name).unlink(missing_ok=True)
        (results / name).mkdir()
    for cid in (0, 1):
        start_device(cid)
    assert server.exit_code() == 0, server.output
    assert_model(results, 2)
    assert "2 of 2 rounds done" in server.output and "Traceback" not in server.output
    for name in ("rounds.csv", "clients.csv"):
        assert f"{name} (Is a directory): its last rounds are missing until a later" in server.output
    assert "cannot draw history.png: " in server.output


@pytest.mark.fault("tables")
def test_a_run_with_a_damaged_table_is_resumed(start_device, start_server, results):
    server = start_server("--rounds", 1)
    clients = [start_device(cid) for cid in (0, 1)]
    assert [process.exit_code() for process in (server, *clients)] == [0, 0, 0]
    damaged = (results / "rounds.csv").read_bytes() + b"\0\xff\r\n"
    (results / "rounds.csv").write_bytes(damaged)
    server = start_server("--rounds", 2, "--resume", results)
    for cid in (0, 1):
        start_device(cid)
    assert server.exit_code() == 0, server.output
    assert "it is now rounds-unreadable-1.csv" in server.output and "Traceback" not in server.output
    assert (results / "rounds-unreadable-1.csv").read_bytes() == damaged
    assert rounds_of(results) == ["1", "2"]
    assert [row["round"] for row in read_table(results / "clients.csv")] == ["1", "1", "2", "2"]


@pytest.mark.fault("output")
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_a_name_that_the_terminal_cannot_show(start_server, start_device, address, results, environment):
    server = start_server("--rounds", 1, env=environment)
    somebody = replace(SOMEBODY, device="b\u00fcro")
    stranger = replace(somebody, cid=8, dataset="mnist")
    connections = [RawClient(address) for _ in range(2)]
    for connection, identity, line in zip(
        connections, (somebody, stranger), ("client 7 on b?ro has joined, 1 now", "client 8 on b?ro is refused: ")
    ):
        connection.receive()
        connection.reply(properties(vars(identity)))
        server.wait_for(line, PROMPTLY)
    for connection in connections:
        connection.close()
    server.wait_for("client 7 on b?ro has left, 0 now", PROMPTLY)
    for cid in (0, 1):
        start_device(cid)
    assert server.exit_code() == 0, server.output
    assert ROUND_1 in server.output
    assert_model(results, 1)


@pytest.mark.fault("stopped server")
@pytest.mark.parametrize(
    ("moment", "number"), [("waiting", signal.SIGTERM), ("fitting", signal.SIGINT), ("frozen", signal.SIGTERM)]
)
def test_a_stopped_server(start_device, start_server, results, number, moment):
    server = start_server("--rounds", 100, "--min_num_clients", 3 if moment == "waiting" else 2)
    clients = [start_device(cid, sleep=1) for cid in (0, 1)]
    if moment == "waiting":
        server.wait_for("has joined, 2 now")
    else:
        server.wait_for(ROUND_1)
    if "frozen" in moment:
        for client in clients:
            client.popen.send_signal(signal.SIGSTOP)
    server.popen.send_signal(number)
    assert server.exit_code(PROMPTLY) == 1
    assert "of 100 rounds done" in server.output and "Traceback" not in server.output
    assert (results / "history.png").exists() or "history.png is not drawn yet: " in server.output
    if moment != "waiting":
        assert checkpoint.load(results).round >= 1
    for client in clients:
        client.popen.send_signal(signal.SIGCONT)
        client.wait_for("no server at", timeout=PROMPTLY)


@pytest.mark.fault("stopped client")
@pytest.mark.parametrize(
    ("moment", "number"), [("waiting", signal.SIGINT), ("idle", signal.SIGTERM), ("in mid-fit", signal.SIGINT)]
)
def test_a_stopped_client(start_device, start_server, number, moment):
    if moment != "waiting":
        server = start_server("--min_num_clients", 2 if moment == "idle" else 1)
    client = start_device(0, sleep=30)
    client.wait_for({"waiting": "no server at", "idle": "connecting to", "in mid-fit": "fit 1 begins"}[moment])
    if moment == "idle":
        server.wait_for("has joined, 1 now")
    client.popen.send_signal(number)
    assert client.exit_code(PROMPTLY) == 128 + number
    assert "the server has ended the run" not in client.output and "Traceback" not in client.output
    if moment != "waiting":
        server.wait_for("has left, 0 now", timeout=PROMPTLY)


BROKEN = {
    "strategy": "strategy.DeviceFedAvg.aggregate_fit = broken",
    "evaluation": "server.central_evaluation = lambda *_: broken",
}


@pytest.mark.fault("error in the server")
@pytest.mark.parametrize("part", BROKEN)
def test_an_error_in_the_servers_own_code(start, start_device, address, results, part):
    code = (
        "import server; from federation.server import strategy\n"
        "def broken(*_, **__): print('here it breaks', flush=True); 1 / 0\n"
        f"{BROKEN[part]}\nserver.main()"
    )
    server = start("-c", code, "--server_address", address, "--results_dir", results)
    server.wait_for("clients connect")
    clients = [start_device(cid) for cid in (0, 1)]
    server.wait_for("here it breaks")
    assert server.exit_code(PROMPTLY) == 1
    assert "ZeroDivisionError" in server.output and "of 3 rounds done" in server.output
    for client in clients:
        client.wait_for("no server at", timeout=PROMPTLY)


@pytest.mark.fault("other numbers")
def test_fractions_as_results_of_a_model_of_whole_numbers(start, start_server, address, results):
    server = start_server("--rounds", 3)
    start("tests/dummy_client.py", address, "--count", 2, "--whole_numbers")
    assert server.exit_code() == 0, server.output
    assert server.output.count(": 2 results and 0 failures") == 3
    assert [array.tolist() for array in checkpoint.load(results).model] == [[[0.75, 0.75]] * 3, [0.75, 0.75]]


@pytest.mark.fault("failed round")
def test_a_round_in_which_all_clients_fail(start_device, start_server, results):
    server = start_server("--rounds", 3)
    for cid in (0, 1):
        start_device(cid, fits={2: "raise"})
    assert server.exit_code() == 1
    assert "round 2: 0 results and 2 failures" in server.output
    assert "round 3: 2 results and 0 failures" in server.output
    assert "2 of 3 rounds done" in server.output
    saved = checkpoint.load(results)
    assert (saved.round, saved.committed) == (3, 2)


@pytest.mark.fault("no initial model")
def test_the_client_that_is_asked_for_the_initial_model_dies(start_device, start_server, results):
    server = start_server("--rounds", 2, "--min_num_clients", 2)
    start_device(0, kind="dies when asked for the initial model")
    server.wait_for("has joined, 1 now")
    start_device(1)
    server.wait_for("initial model by client 0 on")
    start_device(2)
    assert server.exit_code() == 0, server.output
    assert_model(results, 2, cids=(1, 2))


@pytest.mark.fault("misfit")
def test_a_client_with_another_number_of_partitions(start_device, start_server, results):
    server = start_server("--rounds", 1)
    start_device(0)
    server.wait_for("client 0 on")
    stranger = start_device(1, "--num_clients", 20)
    reason = "it has 20 partitions, this federation 50: start it with --num_clients 50"
    assert stranger.exit_code() == 1
    assert stranger.output.count("\n") == 2  # connecting, refused
    assert f"refused by the server: {reason}" in stranger.output and server.output.count(reason) == 1
    start_device(1)
    assert server.exit_code() == 0
    assert_model(results, 1)


@pytest.mark.fault("misfit")
def test_two_clients_with_one_number(start_device, start_server, results):
    server = start_server("--rounds", 2, "--min_num_clients", 2)
    first = start_device(0)
    server.wait_for("client 0 on")
    second = start_device(0)
    second.wait_for("refused by the server: its --cid is taken by client 0 on")
    server.wait_for("is refused: its --cid is taken by client 0 on")
    time.sleep(3)  # time for some more attempts
    assert second.output.count("refused") == 1 and server.output.count("refused") == 1
    assert second.popen.poll() is None and "has joined, 2 now" not in server.output
    first.popen.kill()
    server.wait_for("client 0 on", count=5)  # the second one takes its place
    start_device(1)
    assert server.exit_code() == 0
    assert_model(results, 2)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> dict[str, Path]:
    """Folders made by make_certificates.sh: "right" for this machine, "other", and "elsewhere" without its address."""
    folders = {}
    for name in ("right", "other", "elsewhere"):
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(ROOT / "make_certificates.sh", folder)
        subprocess.run([folder / "make_certificates.sh", "pi.example"], check=True, stdout=subprocess.DEVNULL)
        folders[name] = folder / "certificates"
    # The root certificate of "right", and a server's certificate for another machine.
    elsewhere = folders["elsewhere"]
    for name in ("ca.crt", "ca.key"):
        shutil.copy(folders["right"] / name, elsewhere)
    (elsewhere / "names").write_text("subjectAltName=DNS:another.example,IP:10.0.0.1")
    command = "openssl req -key server.key -new -subj /CN=x -out x.csr && openssl x509 -req -in x.csr -CA ca.crt"
    command += " -CAkey ca.key -CAcreateserial -days 9 -extfile names -out server.pem"
    subprocess.run(command, shell=True, check=True, cwd=elsewhere, capture_output=True)
    return folders


@pytest.mark.fault("certificates")
@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_PYTORCH, marks=needs_py38_pytorch)])
def test_a_federation_with_tls_and_a_token(start_device, start_server, certificates, tmp_path, results, python):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    token = ("--token_file", tmp_path / "token")
    server = start_server("--rounds", 2, "--certificates", certificates["right"], *token)
    root = certificates["right"] / "ca.crt"
    clients = [start_device(cid, "--root_certificate", root, *token, python=python) for cid in (0, 1)]
    assert server.exit_code() == 0, server.output
    assert [client.exit_code() for client in clients] == [0, 0]
    assert_model(results, 2)


TLS_MISTAKES = {
    "wrong CA": (
        "right",
        "other",
        "(unable to get local issuer certificate): copy its ca.crt here again",
    ),
    "wrong name": ("elsewhere", "right", "run ./make_certificates.sh 127.0.0.1 there and restart it"),
    "TLS to plaintext": (None, "right", "does not speak TLS"),
    "plaintext to TLS": ("right", None, "requires TLS: copy its ca.crt here"),
}


@pytest.mark.fault("certificates")
@pytest.mark.parametrize("mistake", TLS_MISTAKES)
def test_wrong_certificates(start_device, start_server, certificates, mistake):
    server_has, client_has, sentence = TLS_MISTAKES[mistake]
    server = start_server(*(("--certificates", certificates[server_has]) if server_has else ()))
    client = start_device(0, *(("--root_certificate", certificates[client_has] / "ca.crt") if client_has else ()))
    client.wait_for(sentence)
    assert client.exit_code(PROMPTLY) == 1
    assert client.output.count("\n") == 1
    assert "has joined" not in server.output


@pytest.mark.fault("token")
def test_a_recorded_answer_is_worth_nothing(start_server, address, tmp_path):
    token = b"0123456789abcdef"
    (tmp_path / "token").write_bytes(token)
    server = start_server("--rounds", 1, "--token_file", tmp_path / "token")
    honest = RawClient(address)
    recorded = answer({"nonce": nonce_of(honest.receive())}, SOMEBODY, token)
    honest.reply(properties(recorded))
    server.wait_for("client 7 on pi has joined")
    honest.close()
    server.wait_for("has left")
    replay = RawClient(address)
    replay.receive()
    replay.reply(properties(recorded))
    assert "another token" in refusal_of(replay.receive())
    replay.close()
    assert server.output.count("has joined") == 1


@pytest.mark.fault("bad result")
def test_replies_of_the_wrong_kind(start_server, start_device, address, results):
    server = start_server("--rounds", 1, "--min_num_clients", 4)
    for cid in (0, 1):
        start_device(cid)
    server.wait_for("has joined, 2 now")
    unknown_status = ClientMessage(fit_res=ClientMessage.FitRes(status={"code": 99, "message": "?"}))
    odd = [RawClient(address) for _ in range(2)]
    for client in odd:
        client.receive()
        client.reply(properties({}))
    for client, reply in zip(odd, (properties({"a": 1}), unknown_status)):
        assert client.receive().WhichOneof("msg") == "fit_ins"
        client.reply(reply)
    assert server.exit_code() == 0, server.output
    for client in odd:
        client.close()
    assert server.output.count("round 1: fit by plain Flower client") == 2
    assert "round 1: 2 results and" in server.output
    assert_model(results, 1)


@pytest.mark.fault("mixed versions")
@pytest.mark.slow
@needs_flower_1_25
@needs_py38_tf
@needs_py38_pytorch
@pytest.mark.parametrize("server_python", [sys.executable, PY38_PYTORCH])
def test_mixed_versions_of_flower(start_device, start_server, results, server_python):
    server = start_server("--rounds", 2, "--min_num_clients", 4, python=server_python)
    for cid, python in enumerate((PY38_TF, PY38_PYTORCH, FLOWER_1_25, sys.executable)):
        start_device(cid, python=python)
    assert server.exit_code() == 0, server.output
    assert "round 2: 4 results and 0 failures" in server.output
    assert_model(results, 2, cids=(0, 1, 2, 3))


@pytest.mark.fault("noise")
def test_noise_on_the_servers_port_and_strangers_that_say_nothing_or_nonsense(
    start_device, start_server, address, results
):
    host, port = address.split(":")
    server = start_server("--rounds", 3)
    silent = [RawClient(address) for _ in range(50)]
    for stranger in silent:
        stranger.receive()
    odd = RawClient(address)
    odd.receive()
    odd.reply(properties({"cid": "0", "device": "\x1b[2J" * 1000, "proof": 5.0}))
    server.wait_for("plain Flower client")
    odd.close()
    server.wait_for("has left, 0 now")
    clients = [start_device(cid, sleep=1) for cid in (0, 1)]
    server.wait_for(ROUND_1)
    generator = random.Random(0)
    with contextlib.ExitStack() as open_at_once:
        for number in range(1000):
            connection = open_at_once.enter_context(socket.create_connection((host, int(port)), timeout=5))
            with contextlib.suppress(OSError):  # the server may hang up before all of it is sent
                if number % 4 == 1:
                    connection.sendall(generator.randbytes(2000))
                elif number % 4 == 2:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")
                elif number % 4 == 3:
                    connection.close()
    assert server.exit_code() == 0, server.output
    assert [client.exit_code() for client in clients] == [0, 0]
    for stranger in silent:
        stranger.close()
    assert "\x1b" not in server.output and "Traceback" not in server.output
    assert_model(results, 3)


class Flapping(transport_pb2_grpc.FlowerServiceServicer):
    """A server that greets a client and then is no more."""

    def __init__(self) -> None:
        self.met = threading.Event()

    def Join(self, request_iterator, context):
        yield ServerMessage(get_properties_ins=serde.get_properties_ins_to_proto(GetPropertiesIns({"nonce": "x"})))
        next(request_iterator)
        self.met.set()
        next(request_iterator, None)


def memory_and_threads(pid: int) -> tuple[float, int]:
    """Megabytes in memory and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])


@pytest.mark.fault("flapping server")
@pytest.mark.slow
@pytest.mark.parametrize(  # the server here is not ours
    "variant", [Variant(), pytest.param(Variant(client_python=PY38_PYTORCH), marks=needs_py38_pytorch)]
)
def test_200_servers_that_come_and_go(start_device, address):
    client = start_device(0)
    seen = []
    for number in range(200):
        flapping = Flapping()
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        transport_pb2_grpc.add_FlowerServiceServicer_to_server(flapping, server)
        server.add_insecure_port(address)
        server.start()
        assert flapping.met.wait(60), f"the client did not come back after {number} servers:\n{client.output}"
        server.stop(0).wait(10)
        seen.append(memory_and_threads(client.popen.pid))
    assert "Traceback" not in client.output
    # gRPC's own threads come and go, between 3 and 11 of them: one that each server leaves behind would be seen beyond.
    for i, most in ((0, 20), (1, 5)):
        assert median(state[i] for state in seen[-20:]) - median(state[i] for state in seen[5:25]) < most

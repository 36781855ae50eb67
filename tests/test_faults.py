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

from federation.client.connection import LONGEST_PAUSE
from federation.results import checkpoint, run_file
from federation.results.tables import read_table
from federation.server.dispatch import PATIENCE
from federation.wire.handshake import Identity, proof

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


@pytest.mark.fault("early client")
@pytest.mark.slow
def test_a_client_that_starts_30_s_before_the_server(start_device, start_server, results):
    client = start_device(0)
    time.sleep(30)
    threads = len(list(Path(f"/proc/{client.popen.pid}/task").iterdir()))
    server = start_server("--rounds", 1, "--min_num_clients", 1)
    server.wait_for("client 0 on", timeout=2 * PROMPTLY)  # 20 s is its longest pause
    assert server.exit_code() == 0 and client.exit_code() == 0
    assert client.output.count("no server at") == 1 and "Traceback" not in client.output
    assert threads < 10


@pytest.mark.fault("killed client")
def test_a_client_that_is_killed_while_idle(start_device, start_server, results):
    server = start_server("--rounds", 2, "--min_num_clients", 3)
    clients = [start_device(cid) for cid in (0, 1)]
    server.wait_for("has joined, 2 now")
    clients[1].popen.kill()
    server.wait_for("has left, 1 now", timeout=PROMPTLY)
    for cid in (1, 2):
        start_device(cid)
    assert server.exit_code() == 0
    assert_model(results, 2, cids=(0, 1, 2))


@pytest.mark.fault("killed client")
def test_a_client_that_is_killed_in_mid_fit(start_device, start_server, results):
    server = start_server("--rounds", 1, "--min_num_clients", 3)
    clients = [start_device(cid, sleep=3) for cid in (0, 1, 2)]
    for client in clients:
        client.wait_for("fit 1 begins")
    clients[2].popen.kill()
    server.wait_for("has left, 2 now", timeout=PROMPTLY)
    assert server.exit_code() == 0
    assert "round 1: fit by client 2 on" in server.output
    assert "round 1: 2 results and 1 failures" in server.output
    assert_model(results, 1)


@pytest.mark.fault("error in a fit")
def test_a_client_whose_fit_raises(start_device, start_server, results):
    server = start_server("--rounds", 3)
    clients = [start_device(0), start_device(1, fits={2: "raise"})]
    assert server.exit_code() == 0
    assert [client.exit_code() for client in clients] == [0, 0]
    assert "RuntimeError: the disk is on fire" in clients[1].output  # with its traceback
    line = next(line for line in server.output.splitlines() if "on fire" in line)
    assert line.startswith("round 2: fit by client 1 on ")
    assert line.endswith(" does not count: RuntimeError: the disk is on fire")
    for line in (ROUND_1, "round 2: 1 results and 1 failures", "round 3: 2 results and 0 failures"):
        assert line in server.output


@pytest.mark.fault("too few clients")
def test_fewer_clients_than_the_minimum_remain(start_device, start_server, results):
    clients = [start_device(cid, sleep=1) for cid in (0, 1)]
    for client in clients:  # up before the server, which does not wait for them any longer than for others later on
        client.wait_for("no server at")
    server = start_server("--rounds", 50, "--wait_timeout", LONGEST_PAUSE + 5)
    server.wait_for(ROUND_1)
    clients[1].popen.kill()
    assert server.exit_code(PATIENCE + LONGEST_PAUSE + 5 + PROMPTLY) == 1
    assert f"there were no 2 clients for {LONGEST_PAUSE + 5} s" in server.output
    assert "Traceback" not in server.output
    saved = checkpoint.load(results)
    assert saved.round >= 1 and all(np.isfinite(array).all() for array in saved.model)
    clients[0].wait_for("trying again")


@pytest.mark.fault("replacement")
def test_a_replacement_joins_in_time(start_device, start_server, results):
    server = start_server("--rounds", 3, "--wait_timeout", 60)
    clients = [start_device(0, sleep=1), start_device(1, sleep=1)]
    server.wait_for(ROUND_1)
    clients[1].popen.kill()
    server.wait_for("waits for 2 clients: 1 missing")
    start_device(2)
    assert server.exit_code() == 0
    assert "3 of 3 rounds done" in server.output


@pytest.mark.fault("frozen client")
def test_a_client_that_is_frozen_while_it_gets_a_large_model(start_device, start_server, results):
    size = 5_000_000  # 20 MB, more than the kernel takes in the name of a process that does not read
    server = start_server("--rounds", 2, "--round_timeout", 20, "--min_num_clients", 3)
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
    server = start_server("--rounds", 3, "--round_timeout", 10)
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
    elif moment == "while it sends the model":
        server.wait_for(ROUND_1)
    else:  # a model is on disk, and not yet evaluated
        committed = {"between fit and evaluate": 2, "after the last fit": 3}[moment]
        deadline = time.monotonic() + 60
        while checkpoint.load(results).round < committed:
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
        ("while it sends the model", {"size": 8_000_000}),
        ("between fit and evaluate", {"evaluate_sleep": 4}),
        ("after the last fit", {"evaluate_sleep": 4}),
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
    assert_model(results, 3, size=faults.get("size", 6))
    assert rounds_of(results) == ["1", "2", "3"]


@pytest.mark.fault("half a checkpoint")
def test_a_server_killed_while_it_writes_a_checkpoint(start_device, start_server, results):
    size = 20_000_000  # 80 MB, so that there is time to see it
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
        assert server.output.count(f"cannot write {table} (Is a directory): its rows are kept") == 1
        table.rmdir()
    assert server.exit_code() == 0
    assert all(server.output.count(f"{table} is written again, and complete") == 1 for table in tables)
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
        assert f"{name} lacks the last rounds: cannot write it (Is a directory)" in server.output
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
    somebody = Identity(7, "b\u00fcro", instance="y", script="script.py", dataset="cifar10", num_clients=50, model="x")
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
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["waiting", "fitting", "fitting, all of them frozen"])
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
    assert (results / "history.png").exists() or "no time to draw" in server.output
    if moment != "waiting":
        assert checkpoint.load(results).round >= 1
    for client in clients:
        client.popen.send_signal(signal.SIGCONT)
        client.wait_for("no server at", timeout=PROMPTLY)


CLIENT_PYTHONS = [
    sys.executable,
    pytest.param(PY38_PYTORCH, marks=needs_py38_pytorch),
    pytest.param(FLOWER_1_25, marks=[needs_flower_1_25, pytest.mark.slow]),
    pytest.param(PY38_TF, marks=[needs_py38_tf, pytest.mark.slow]),
]


@pytest.mark.fault("stopped client")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["waiting", "idle", "in mid-fit"])
@pytest.mark.parametrize("python", CLIENT_PYTHONS)
def test_a_stopped_client(start_device, start_server, number, moment, python):
    if moment != "waiting":
        server = start_server("--min_num_clients", 2 if moment == "idle" else 1)
    client = start_device(0, python=python, sleep=30)
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
    "sampling": "strategy.DeviceFedAvg.configure_fit = broken",
    "report": "report.Report.end_round = broken",
    "evaluation": "server.central_evaluation = lambda *_: broken",
}


@pytest.mark.fault("error in the server")
@pytest.mark.parametrize("part", BROKEN)
def test_an_error_in_the_servers_own_code(start, start_device, address, results, part):
    code = (
        "import server; from federation.results import report; from federation.server import strategy\n"
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


BAD_RESULTS = {
    "other shape": "array 0 is of shape (6, 1), the global model's of (6,)",
    "fewer arrays": "it has 1 arrays, the global model 2",
    "more arrays": "it has 3 arrays, the global model 2",
    "one number": "array 0 is of shape (1,), the global model's of (6,)",
    "nan": "array 0 has NaN or infinity in it",
    "inf": "array 0 has NaN or infinity in it",
    "complex": "array 0 holds no numbers but complex64",
    "1e300": "some of its numbers are out of range for the global model's float32",
    "text": "array 0 holds no numbers but <U1",
    "garbage": "its bytes are no arrays",
    "0 examples": "it claims 0 examples",
    "-1 examples": "it claims -1 examples",
    "2**62 examples": "it claims 4611686018427387904 examples",
}


@pytest.mark.fault("bad result")
def test_bad_results_among_good_ones(start_device, start_server, results):
    server = start_server("--rounds", len(BAD_RESULTS), "--min_num_clients", 3)
    for cid in (0, 1):
        start_device(cid)
    start_device(2, fits=dict(enumerate(BAD_RESULTS, start=1)))
    assert server.exit_code() == 0, server.output
    for server_round, reason in enumerate(BAD_RESULTS.values(), start=1):
        line = next(line for line in server.output.splitlines() if line.startswith(f"round {server_round}: fit by"))
        assert line.startswith(f"round {server_round}: fit by client 2 on ") and f"does not count: {reason}" in line
        assert f"round {server_round}: 2 results and 1 failures" in server.output
    assert_model(results, len(BAD_RESULTS))


@pytest.mark.fault("other numbers")
def test_results_in_other_types_of_numbers(start_device, start_server, results):
    server = start_server("--rounds", 2)
    start_device(0)
    start_device(1, fits={1: "float64", 2: "big-endian"})
    assert server.exit_code() == 0, server.output
    assert server.output.count(": 2 results and 0 failures") == 2
    assert_model(results, 2)


PLAIN_CLIENT = """
import sys
import numpy as np
from flwr.client import NumPyClient, start_client
class Client(NumPyClient):
    def get_parameters(self, config):
        return [np.zeros(6, np.float32), np.zeros((2, 3), np.float32)]
    def fit(self, parameters, config):
        return [(array + 1).astype(sys.argv[2]) for array in parameters], 1, {}
    def evaluate(self, parameters, config):
        return 0.5, 1, {}
start_client(server_address=sys.argv[1], client=Client().to_client())
"""


@pytest.mark.fault("other numbers")
@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_a_plain_flower_client_whose_results_have_another_type_of_numbers(start, start_server, address, results, dtype):
    server = start_server("--rounds", 3, "--min_num_clients", 1)
    start("-c", PLAIN_CLIENT, address, dtype)
    assert server.exit_code() == 0, server.output
    assert server.output.count(": 1 results and 0 failures") == 3
    for array in checkpoint.load(results).model:
        assert array.dtype == np.float32 and (array == 3).all()


@pytest.mark.fault("bad result")
@pytest.mark.parametrize("kind", ["no metrics", "odd metrics"])
def test_metrics_that_are_missing_or_no_numbers(start_device, start_server, results, kind):
    server = start_server("--rounds", 1)
    start_device(0)
    start_device(1, fits={1: kind})
    assert server.exit_code() == 0
    assert ROUND_1 in server.output
    assert_model(results, 1)


@pytest.mark.fault("bad result")
def test_a_bad_evaluation(start_device, start_server, results):
    server = start_server("--rounds", 1)
    start_device(0)
    start_device(1, kind="odd evaluation")
    assert server.exit_code() == 0
    assert "round 1: evaluate by client 1 on" in server.output and "does not count: its loss is nan" in server.output
    assert "round 1: 2 results and 1 failures, loss 0.0000, accuracy 0.5000" in server.output


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


@pytest.mark.fault("failed round")
def test_a_last_round_in_which_all_clients_fail_leaves_the_model_as_it_was(start_device, start_server, results):
    server = start_server("--rounds", 2)
    for cid in (0, 1):
        start_device(cid, fits={2: "nan"})
    assert server.exit_code() == 1
    assert_model(results, 1)


@pytest.mark.fault("no initial model")
@pytest.mark.parametrize("kind", ["dies when asked for the initial model", "nan as initial model"])
def test_the_client_that_is_asked_for_the_initial_model_dies(start_device, start_server, results, kind):
    server = start_server("--rounds", 2, "--min_num_clients", 2)
    start_device(0, kind=kind)
    server.wait_for("has joined, 1 now")
    start_device(1)
    server.wait_for("initial model by client 0 on")
    if "dies" in kind:
        start_device(2)
    assert server.exit_code() == 0, server.output
    assert_model(results, 2, cids=(1, 2) if "dies" in kind else (0, 1))


@pytest.mark.fault("misfit")
def test_a_client_with_another_data_set_or_model_or_partitioning(start_device, start_server, results):
    server = start_server("--rounds", 2, "--min_num_clients", 2)
    start_device(0)
    server.wait_for("client 0 on")
    strangers = [
        start_device(1, "--mnist"),
        start_device(2, "--num_clients", 20),
        start_device(3, "--alpha", 0.3),
        start_device(4, size=7),
    ]
    reasons = [
        "it has mnist, this federation cifar10",
        "it cuts the data set into 20 partitions (--num_clients), this federation into 50",
        "it cuts the data set with --alpha 0.3, this federation with no --alpha",
        "it trains the model of faulty_client.py (2 arrays, 13 numbers, ",
    ]
    for stranger, reason in zip(strangers, reasons):
        assert stranger.exit_code() == 1
        assert stranger.output.count("\n") == 2  # connecting, refused
        assert f"refused by the server: {reason}" in stranger.output
        assert server.output.count(reason) == 1
    start_device(1)
    assert server.exit_code() == 0
    assert_model(results, 2)


@pytest.mark.fault("misfit")
def test_a_tensorflow_client_among_pytorch_ones(start, start_server, address, mnist):
    server = start_server("--rounds", 1, "--min_num_clients", 2)
    arguments = ("--mnist", "--num_clients", 20, "--data_dir", mnist, "--server_address", address)
    start("client_pytorch.py", "--cid", 0, *arguments)
    server.wait_for("client 0 on")
    stranger = start("client_tf.py", "--cid", 1, *arguments)
    assert stranger.exit_code() == 1
    reason = "it trains the model of client_tf.py (10 arrays, 44426 numbers, "
    assert reason in stranger.output and reason in server.output
    assert "this federation that of client_pytorch.py (10 arrays, 44426 numbers, " in server.output
    start("client_pytorch.py", "--cid", 1, *arguments)
    assert server.exit_code() == 0


@pytest.mark.fault("misfit")
def test_two_clients_with_one_number(start_device, start_server, results):
    server = start_server("--rounds", 2, "--min_num_clients", 2)
    first = start_device(0)
    server.wait_for("client 0 on")
    second = start_device(0)
    second.wait_for("refused by the server: its --cid is taken by client 0 on")
    server.wait_for("is refused: its --cid is taken by client 0 on")
    time.sleep(8)  # time for some more attempts
    assert second.output.count("refused") == 1 and server.output.count("refused") == 1
    assert second.popen.poll() is None and "has joined, 2 now" not in server.output
    first.popen.kill()
    server.wait_for("client 0 on", count=5)  # the second one takes its place
    start_device(1)
    assert server.exit_code() == 0
    assert_model(results, 2)


@pytest.mark.fault("misfit")
def test_a_plain_flower_client_may_join(start, start_server, start_device, address):
    server = start_server("--rounds", 1, "--min_num_clients", 2)
    start("tests/dummy_client.py", address, "--count", 2)
    server.wait_for("plain Flower client", count=2)
    assert server.exit_code() == 0
    assert ROUND_1 in server.output


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
@pytest.mark.parametrize("python", CLIENT_PYTHONS)
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
@pytest.mark.parametrize("kind", ["none", "another"])
@pytest.mark.parametrize("python", CLIENT_PYTHONS)
def test_a_client_without_the_token(start_device, start_server, tmp_path, results, kind, python):
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "another").write_text("0123456789abcdeg")
    server = start_server("--rounds", 1, "--token_file", tmp_path / "token")
    token = ("--token_file", tmp_path / "another") if kind == "another" else ()
    stranger = start_device(0, *token, python=python)
    assert stranger.exit_code() == 1
    words = "it has no token" if kind == "none" else "it has another token"
    assert stranger.output.count(words) == 1 and server.output.count(words) == 1
    assert "fit" not in stranger.output and "has joined" not in server.output
    for cid in (0, 1):
        start_device(cid, "--token_file", tmp_path / "token")
    assert server.exit_code() == 0
    assert_model(results, 1)


@pytest.mark.fault("token")
def test_a_plain_flower_client_without_the_token(start, start_server, address, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    server = start_server("--rounds", 1, "--min_num_clients", 1, "--token_file", tmp_path / "token")
    stranger = start("tests/dummy_client.py", address)
    assert stranger.exit_code() == 0  # it is told that the run is over
    assert "fit" not in stranger.output
    assert server.output.count("a plain Flower client is refused: it has no token") == 1


@pytest.mark.fault("token")
def test_a_recorded_answer_is_worth_nothing(start_server, start_device, address, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    server = start_server("--rounds", 1, "--token_file", tmp_path / "token")
    identity = Identity(7, "pi", instance="y", script="script.py", dataset="cifar10", num_clients=50, model="x")
    honest = RawClient(address)
    recorded = {**vars(identity), "proof": proof(b"0123456789abcdef", nonce_of(honest.receive()), identity)}
    honest.reply(properties(recorded))
    server.wait_for("client 7 on pi has joined")
    honest.close()
    server.wait_for("has left")
    replay = RawClient(address)
    question = replay.receive()
    replay.reply(properties(recorded))
    assert "another token" in refusal_of(replay.receive())
    replay.close()
    other_identity = RawClient(address)  # an answer to the right question, changed on the way
    changed = {
        **vars(identity),
        "proof": proof(b"0123456789abcdef", nonce_of(other_identity.receive()), identity),
        "cid": 8,
    }
    other_identity.reply(properties(changed))
    assert "another token" in refusal_of(other_identity.receive())
    other_identity.close()
    assert question is not None and server.output.count("has joined") == 1


@pytest.mark.fault("bad result")
@pytest.mark.parametrize("kind", ["wrong kind of reply", "unknown status", "no reply"])
def test_a_reply_of_the_wrong_kind(start_server, start_device, address, results, kind):
    server = start_server("--rounds", 1, "--min_num_clients", 3, "--round_timeout", 15)
    for cid in (0, 1):
        start_device(cid)
    server.wait_for("has joined, 2 now")
    odd = RawClient(address)
    odd.receive()
    odd.reply(properties({}))
    assert odd.receive().WhichOneof("msg") == "fit_ins"
    if kind == "wrong kind of reply":
        odd.reply(properties({"a": 1}))
    elif kind == "unknown status":
        odd.reply(ClientMessage(fit_res=ClientMessage.FitRes(status={"code": 99, "message": "?"})))
    assert server.exit_code() == 0, server.output
    odd.close()
    assert "round 1: fit by plain Flower client" in server.output
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
def test_noise_on_the_servers_port(start_device, start_server, address, results):
    host, port = address.split(":")
    server = start_server("--rounds", 5)
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
    assert server.output.count(": 2 results and 0 failures") == 5
    assert [client.exit_code() for client in clients] == [0, 0]
    assert "Traceback" not in server.output
    assert_model(results, 5)


@pytest.mark.fault("noise")
def test_strangers_that_join_and_say_nothing_or_nonsense(start_device, start_server, address, results):
    server = start_server("--rounds", 2)
    silent = [RawClient(address) for _ in range(50)]
    for stranger in silent:
        stranger.receive()
    odd = RawClient(address)
    odd.receive()
    odd.reply(properties({"cid": "0", "device": "\x1b[2J" * 1000, "proof": 5.0}))
    server.wait_for("plain Flower client")
    odd.close()
    server.wait_for("has left, 0 now")
    for cid in (0, 1):
        start_device(cid)
    assert server.exit_code() == 0
    for stranger in silent:
        stranger.close()
    assert "\x1b" not in server.output and "Traceback" not in server.output
    assert_model(results, 2)


@pytest.mark.fault("old Python")
@pytest.mark.slow
@needs_py38_pytorch
def test_50_normal_runs_on_python_38(start, address, tmp_path, mnist):
    arguments = ("--mnist", "--num_clients", 50, "--data_dir", mnist, "--server_address", address)
    for number in range(50):
        results = tmp_path / f"results{number}"
        server = start(
            "server.py", "--rounds", 1, "--epochs", 1, "--server_address", address, "--results_dir", results,
            python=PY38_PYTORCH,
        )  # fmt: skip
        clients = [start("client_pytorch.py", "--cid", cid, *arguments, python=PY38_PYTORCH) for cid in (0, 1)]
        assert server.exit_code() == 0, server.output
        assert [client.exit_code() for client in clients] == [0, 0]
        assert ROUND_1 in server.output
        for process in (server, *clients):
            assert not any(word in process.output for word in ("Traceback", "abort", "Segmentation"))


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

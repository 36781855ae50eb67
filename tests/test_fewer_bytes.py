"""What travels between server and clients: how much it is, and that less of it leads to the same model."""

from __future__ import annotations

import re
from pathlib import Path

from federation.results import checkpoint
from federation.results.tables import read_table

import pytest
from conftest import Variant
from processes import federate
from test_faults import assert_model

SHAPE = [100, 100]
DIGEST = 32  # bytes


@pytest.fixture
def variant() -> Variant:
    """Half precision is on where a test here says so."""
    return Variant()


def traffic(results: Path) -> dict[tuple[int, str], list[float]]:
    """What was sent to each client in each round and received from it, in sizes of Flower's own form of the model."""
    model = checkpoint.load(results).model
    size = sum(array.nbytes + 128 for array in model) / 1e6  # 128: NumPy's description of an array
    return {
        (int(row["round"]), row["cid"]): [float(row["sent_mb"]) / size, float(row["received_mb"]) / size]
        for row in read_table(results / "clients.csv")
    }


def about(size: float):
    """A number of models and a few digests."""
    return pytest.approx(size, abs=4 * DIGEST / 40_000)


def test_a_model_that_a_client_has_is_not_sent_again(start_server, start_device, results):
    server = start_server("--rounds", 3)
    for cid in (0, 1):
        start_device(cid, size=SHAPE)
    assert server.exit_code() == 0
    assert_model(results, 3, size=SHAPE)
    assert traffic(results) == {
        (1, "0"): [about(1), about(1)],  # it has made the initial model
        (1, "1"): [about(2), about(1)],
        **{(server_round, cid): [about(1), about(1)] for server_round in (2, 3) for cid in ("0", "1")},
    }
    rows = read_table(results / "clients.csv")
    for server_round in ("1", "2", "3"):
        total = sum(float(row[c]) for row in rows if row["round"] == server_round for c in ("sent_mb", "received_mb"))
        assert re.search(rf"round {server_round}: 2 results .*, {total:.2f} MB, \d+\.\d s\n", server.output)


def test_half_precision(start_server, start_device, results):
    server = start_server("--rounds", 3, "--half_precision")
    for cid in (0, 1):
        start_device(cid, size=SHAPE)
    assert server.exit_code() == 0, server.output
    assert_model(results, 3, size=SHAPE)
    for (server_round, _), (sent, received) in traffic(results).items():
        assert sent < 0.5 + 0.5 * (server_round == 1) and 0.2 < received < 0.5


def test_a_resumed_server_does_not_send_the_model_that_clients_have(start_server, start_device, results):
    server = start_server("--rounds", 3)
    clients = [start_device(cid, size=SHAPE, sleep=2) for cid in (0, 1)]
    for client in clients:
        client.wait_for("fit 2 begins")
    server.popen.kill()
    server.popen.wait()
    server = start_server("--rounds", 3, "--resume", results)
    assert server.exit_code() == 0
    assert_model(results, 3, size=SHAPE)
    for cid, client in enumerate(clients):
        assert client.exit_code() == 0 and client.output.count("fit 2 begins") == 1
        assert traffic(results)[2, f"{cid}"] == [about(1), about(1)]


def test_real_clients_in_half_precision(processes, mnist):
    data = "--mnist", "--num_clients", 20, "--data_dir", mnist
    flags = "--rounds", 2, "--epochs", 1, "--half_precision"
    federation = federate(processes, "client_pytorch.py", flags, data)
    sizes = traffic(federation.results)
    for cid in ("0", "1"):
        assert sum(sizes[2, cid]) < 1
    assert all("Traceback" not in client.output for client in federation.clients)

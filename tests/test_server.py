"""The server with clients that do not learn: rounds, a fraction of them, averages, results."""

from __future__ import annotations

import re

from federation.results.tables import read_table

import numpy as np
import pytest

DUMMY = "tests/dummy_client.py"


def test_two_rounds_of_fedavg_and_their_results(start_server, start, address, tmp_path):
    server = start_server("--rounds", 2, "--min_num_clients", 3, "--epochs", 5, "--batch_size", 7)
    clients = start(DUMMY, address, "--count", 3)
    assert server.exit_code() == 0
    assert clients.exit_code() == 0, clients.output
    for server_round in (1, 2):
        assert f"round {server_round}: 3 results and 0 failures, loss 1.3333, accuracy 0.1333" in server.output
        told = f"[('batch_size', 7), ('epochs', 5), ('seed', SEED), ('server_round', {server_round})]"
        assert told in re.sub(r"'seed', \d+", "'seed', SEED", clients.output)
    assert "round 3" not in server.output
    assert "2 of 2 rounds done" in server.output
    assert "DEPRECATED" not in server.output and "INFO" not in server.output

    results = tmp_path / "results"
    rounds = read_table(results / "rounds.csv")
    assert [(row["round"], row["clients"], row["failures"]) for row in rounds] == [("1", "3", "0"), ("2", "3", "0")]
    assert float(rounds[1]["loss"]) == pytest.approx((0 * 1 + 1 * 2 + 2 * 3) / 6)
    rows = read_table(results / "clients.csv")
    assert sorted((row["round"], row["examples"], row["loss"]) for row in rows) == [
        (str(server_round), str(cid + 1), f"{cid}.0") for server_round in (1, 2) for cid in range(3)
    ]
    with np.load(results / "model.npz") as model:
        arrays = [model[name] for name in model.files]
    assert [array.shape for array in arrays] == [(3, 2), (2,)]
    assert all((array == 2).all() and array.dtype == np.float32 for array in arrays)  # + 1 in each round
    assert (results / "history.png").read_bytes().startswith(b"\x89PNG")
    assert read_table(results / "classes.csv") == []  # nobody has evaluated by class


def test_fraction_of_the_connected_clients(start_server, start, address):
    server = start_server("--rounds", 4, "--min_num_clients", 4, "--sample_fraction", 0.5)
    start(DUMMY, address, "--count", 4)
    assert server.exit_code() == 0
    assert server.output.count(": 2 results and 0 failures") == 4
    assert "4 of 4 rounds done" in server.output


def test_all_clients_train_at_the_same_time(start_server, start, address, tmp_path):
    server = start_server("--rounds", 1, "--min_num_clients", 50)
    start(DUMMY, address, "--count", 50, "--sleep", 2)
    assert server.exit_code() == 0
    assert "50 results and 0 failures" in server.output
    # Flower by itself lets cores + 4 clients train at once: 18 s on 2 cores.
    assert float(read_table(tmp_path / "results" / "rounds.csv")[0]["seconds"]) < 14

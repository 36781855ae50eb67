"""The server with clients that do not learn: rounds, minimums, fractions, averages, results, exit codes."""

from __future__ import annotations

import re
import signal
import time

from federation.results.tables import read_table

import numpy as np
import pytest
from processes import PROMPTLY

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
    assert sorted((row["round"], row["cid"], row["examples"], row["loss"]) for row in rows) == [
        (str(server_round), str(cid), str(cid + 1), f"{cid}.0") for server_round in (1, 2) for cid in range(3)
    ]
    with np.load(results / "model.npz") as model:
        arrays = [model[name] for name in model.files]
    assert [array.shape for array in arrays] == [(3, 2), (2,)]
    assert all((array == 2).all() and array.dtype == np.float32 for array in arrays)  # + 1 in each round
    assert (results / "history.png").read_bytes().startswith(b"\x89PNG")
    assert not (results / "classes.csv").exists()  # nobody has evaluated by class


@pytest.mark.parametrize("minimum", [1, 5])
def test_minimum_of_clients(start_server, start, address, minimum):
    server = start_server("--rounds", 1, "--min_num_clients", minimum)
    start(DUMMY, address, "--count", minimum)
    assert server.exit_code() == 0
    assert f"round 1: {minimum} results and 0 failures" in server.output


def test_no_round_below_the_minimum(start_server, start, address):
    server = start_server("--rounds", 1, "--min_num_clients", 3)
    first = start(DUMMY, address, "--count", 2)
    server.wait_for("has joined, 2 now")
    time.sleep(3)
    assert "fit" not in first.output and "round 1:" not in server.output
    start(DUMMY, address, "--first", 2)
    assert server.exit_code() == 0
    assert "round 1: 3 results and 0 failures" in server.output


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


def test_clients_that_leave_a_metric_out_do_not_count_in_its_average(start_server, start, address):
    server = start_server("--rounds", 1, "--min_num_clients", 3)
    start(DUMMY, address, "--count", 3, "--forgetful")
    assert server.exit_code() == 0
    assert f"loss 1.3333, accuracy {(0.0 * 1 + 0.2 * 3) / 4:.4f}" in server.output


def test_a_round_without_results_is_no_success(start_server, start, address, tmp_path):
    server = start_server("--rounds", 2, "--min_num_clients", 1)
    start(DUMMY, address, "--fail_in_round", 1)
    server.wait_for("round 2 waits for 1 clients: 1 missing")
    start(DUMMY, address)
    assert server.exit_code() == 1
    assert "round 1: 0 results and 1 failures" in server.output
    assert "1 of 2 rounds done" in server.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_tells_that_rounds_are_missing(start_server, start, address, tmp_path, number):
    server = start_server("--rounds", 100, "--min_num_clients", 1)
    start(DUMMY, address, "--sleep", 1)
    server.wait_for("round 1: 1 results")
    server.popen.send_signal(number)
    assert server.exit_code(PROMPTLY) == 1
    assert "of 100 rounds done" in server.output and "Traceback" not in server.output
    assert (tmp_path / "results/model.npz").exists()


def test_an_error_ends_the_server_and_not_with_0(start, address, tmp_path):
    broken = "import server; server.fit_config = lambda *_: 1 / 0; server.main()"
    arguments = "--server_address", address, "--results_dir", tmp_path / "results", "--min_num_clients", 1
    server = start("-c", broken, *arguments)
    server.wait_for("clients connect")
    start(DUMMY, address)
    assert server.exit_code(PROMPTLY) == 1
    assert "ZeroDivisionError" in server.output and "0 of 3 rounds done" in server.output

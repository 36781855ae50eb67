"""Flower's Deployment Engine: flower_app.py on a real SuperLink and real SuperNodes, which a test may kill."""

from __future__ import annotations

import random
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator

from federation.results import checkpoint
from federation.results.tables import read_table

import psutil
import pytest
from conftest import keep_threads
from deployment import Fleet, Watch, kill
from processes import DEADLINE, PROMPTLY, ROOT, federate

pytestmark = pytest.mark.slow  # for each message, a SuperNode starts a process: 5 to 40 s on a busy laptop
RUN_DEADLINE = 4 * DEADLINE  # of a run of a few rounds


def wait_until(condition: Callable[[], object], timeout: float = RUN_DEADLINE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.1)


@pytest.fixture
def fleet(tmp_path_factory, mnist) -> Iterator[Fleet]:
    """A fleet that is not started yet; in a folder with a short name, because that of a socket may have 107 bytes."""
    with Fleet(tmp_path_factory.mktemp("fleet"), mnist) as fleet:
        yield fleet


@pytest.fixture
def one_thread(mnist) -> None:
    """Have all clients train on one thread, as if more had been tried on this device: sums depend on their number."""
    keep_threads(mnist, 1)


def model(results: Path) -> list[bytes]:
    return [array.tobytes() for array in checkpoint.load(results).model]


def committed(results: Path) -> list[int]:
    """The rounds in rounds.csv."""
    table = results / "rounds.csv"
    return [int(row["round"]) for row in read_table(table)] if table.exists() else []


def test_a_client_that_stays_loaded_makes_the_same_model(fleet, one_thread, processes, mnist, record_property):
    flags = "--rounds 2 --min_num_clients 2 --mnist --seed 7"
    fleet.start_superlink()

    seconds, watches = {}, {}
    for name in ("loaded", "a process each"):
        nodes = fleet.start_nodes(0, 1, loaded=name == "loaded")
        watches[name] = Watch(nodes[0])
        run = fleet.run(f"{flags} --results_dir {fleet.folder / name.split()[0]}")
        assert run.exit_code(RUN_DEADLINE) == 0, fleet.logs()
        assert run.output.count("2 results and 0 failures") == 2, fleet.logs()
        rows = read_table(fleet.folder / name.split()[0] / "rounds.csv")
        seconds[name] = float(rows[-1]["seconds"])
        if name == "loaded":
            for cid in nodes:
                assert stat.S_IMODE(fleet.socket(cid).stat().st_mode) == 0o600
            clients = fleet.loaded(0) + fleet.loaded(1)
            assert len(clients) == 2
        for node in nodes.values():
            node.popen.terminate()
        if name == "loaded":
            assert not psutil.wait_procs(clients, PROMPTLY)[1]
        for node in nodes.values():
            node.exit_code()

    assert fleet.statuses() == ["finished:completed"] * 2
    assert len(watches["loaded"].seen) > 4 and not watches["loaded"].frameworks
    assert watches["a process each"].frameworks == {"torch"}  # or else this would prove nothing
    client = "--mnist", "--num_clients", 2, "--data_dir", mnist, "--threads", 1
    by_server_py = federate(processes, "client_pytorch.py", ("--rounds", 2, "--seed", 7), client)
    assert model(fleet.folder / "loaded") == model(fleet.folder / "a") == model(by_server_py.results)
    for name, watch in watches.items():
        figure = (
            f"{seconds[name]:.0f} s a round; a message: up to {watch.cpu_seconds:.1f} s of CPU, {watch.peak_mb:.0f} MB"
        )
        record_property("figure", f"deployment, 2 nodes, {name}: {figure}")


def test_a_loaded_client_that_dies_is_started_anew(fleet, one_thread):
    fleet.start_superlink()
    fleet.start_nodes(0, 1)
    run = fleet.run(f"--rounds 1 --min_num_clients 2 --mnist --epochs 30 --results_dir {fleet.folder / 'results'}")
    client = in_mid_fit(fleet, 0)
    kill(client)
    assert run.exit_code(RUN_DEADLINE) == 0, fleet.logs()
    assert "round 1: 2 results and 0 failures" in run.output
    assert len(fleet.loaded(0)) == 1 and fleet.loaded(0) != [client]


def in_mid_fit(fleet: Fleet, cid: int) -> psutil.Process:
    """Return the loaded client once it has been training for a while."""
    log = fleet.socket(cid).with_name(f"{cid}.sock.log")
    wait_until(lambda: log.exists() and "loaded, answers" in log.read_text())
    (client,) = fleet.loaded(cid)
    loading = client.cpu_times().user
    wait_until(lambda: client.cpu_times().user > loading + 2)  # seconds; all but a fit takes less
    return client


def test_a_node_that_is_cut_off_in_mid_fit_takes_part_again_later(fleet):
    fleet.start_superlink()
    nodes = fleet.start_nodes(0, 1)
    results = fleet.folder / "results"
    run = fleet.run(f"--rounds 3 --min_num_clients 2 --mnist --epochs 20 --results_dir {results}")
    in_mid_fit(fleet, 1)
    fleet.cut_off(nodes[1])
    run.wait_for("round 1: 1 results and 1 failures", RUN_DEADLINE)
    assert "fit by client 1" in run.output and "does not count: its connection ended" in run.output
    fleet.start_nodes(1)
    assert run.exit_code(RUN_DEADLINE) == 0, fleet.logs()
    assert "round 3: 2 results and 0 failures" in run.output
    assert committed(results) == [1, 2, 3]


def test_a_run_goes_on_after_the_superlink_was_cut_off(fleet):
    superlink = fleet.start_superlink()
    nodes = fleet.start_nodes(0, 1)
    results = fleet.folder / "results"
    flags = "--rounds 3 --min_num_clients 2 --mnist"
    run = fleet.run(f"{flags} --results_dir {results}")
    run.wait_for("round 1: 2 results and 0 failures", RUN_DEADLINE)
    fleet.cut_off(superlink)
    assert run.exit_code() != 0, fleet.logs()

    superlink = fleet.start_superlink()
    for cid, node in nodes.items():
        node.exit_code()  # Flower's ends, with 0, if the SuperLink does not know it any more
        assert "SuperNode terminated gracefully" in node.output
        fleet.start_nodes(cid)
    resumed = fleet.run(f"{flags} --resume {results}")
    assert resumed.exit_code(RUN_DEADLINE) == 0, fleet.logs()
    assert "going on after round" in resumed.output and "3 of 3 rounds done" in resumed.output
    assert committed(results) == [1, 2, 3]
    assert fleet.statuses() == ["finished:completed"]


def test_what_does_not_fit_is_told_on_both_sides(fleet, cifar10, tmp_path):
    fleet.start_superlink()
    (tmp_path / "nothing").mkdir()
    odd = fleet.start_node(num_partitions=2)
    poor = fleet.start_node(partition_id=0, num_partitions=2, data_dir=f"{tmp_path}/nothing")
    socket = fleet.socket(1)
    by_hand = "--serve", socket, "--cid", 1, "--num_clients", 2, "--data_dir", cifar10, "--threads", 1
    other = fleet.start("client_pytorch.py", *by_hand)
    other.wait_for("loaded, answers")
    other_node = fleet.start_node(partition_id=1, num_partitions=2, socket=f"{socket}")

    run = fleet.run(f"--rounds 1 --min_num_clients 1 --mnist --wait_timeout 300 --results_dir {fleet.folder}/results")
    reasons = {
        odd: "it has no 'partition-id' in its --node-config",
        poor: f"There is no mnist in {tmp_path}/nothing/mnist, and the Hugging Face Hub does not give it",
        other_node: "the client that is loaded has dataset cifar10",
    }
    for reason in reasons.values():
        run.wait_for(f"cannot take part: {reason}", RUN_DEADLINE)
    run.exit_code(RUN_DEADLINE)  # Flower's, 0 whatever became of the run
    assert "only 0 of 1 clients were there after 300 s (--wait_timeout)" in run.output
    for node in (odd, poor):
        assert f"cannot answer: {reasons[node]}" in node.output
    assert "refused: the client that is loaded has dataset cifar10" in other.output
    assert fleet.statuses() == ["finished:failed"]


def test_a_run_with_a_wrong_flag_fails(fleet):
    fleet.start_superlink()
    run = fleet.run("--rounds many")
    run.exit_code()
    assert "argument --rounds: must be a whole number, at least 1, not 'many'" in run.output
    assert "this will not do, as said above: flags='--rounds many'" in run.output
    assert fleet.statuses() == ["finished:failed"]


def test_encrypted_with_keys_of_nodes(fleet):
    shutil.copy(ROOT / "make_certificates.sh", fleet.folder)
    subprocess.run([fleet.folder / "make_certificates.sh"], check=True, capture_output=True, timeout=PROMPTLY)
    certificates = fleet.folder / "certificates"
    fleet.root_certificate = certificates / "ca.crt"
    keys = [fleet.folder / f"key-{number}" for number in range(3)]
    for key in keys:
        command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True, timeout=PROMPTLY)
    files = {"certfile": "server.pem", "keyfile": "server.key", "ca-certfile": "ca.crt"}
    flags = [word for name, file in files.items() for word in (f"--ssl-{name}", certificates / file)]
    fleet.start_superlink(*flags, "--enable-supernode-auth")
    for key in keys[:2]:
        registered = fleet.start("flwr", "supernode", "register", f"{key}.pub", "fleet")
        assert registered.exit_code() == 0 and "registered successfully" in registered.output, registered.output

    strangers = [
        fleet.start_node("--auth-supernode-private-key", keys[2], partition_id=0, num_partitions=2),
        fleet.start_node(partition_id=0, num_partitions=2),
    ]
    for cid, key in enumerate(keys[:2]):
        socket = f"{fleet.socket(cid)}"
        fleet.start_node("--auth-supernode-private-key", key, partition_id=cid, num_partitions=2, socket=socket)
    results = fleet.folder / "results"
    run = fleet.run(f"--rounds 2 --min_num_clients 2 --mnist --results_dir {results}")
    for stranger in strangers:
        assert stranger.exit_code() != 0
        assert "Failed to initialize the connection to the SuperLink" in stranger.output, stranger.output
    assert run.exit_code(RUN_DEADLINE) == 0, fleet.logs()
    assert run.output.count("has joined") == run.output.count("2 results and 0 failures") == 2
    assert committed(results) == [1, 2]


def test_twenty_rounds_whatever_is_killed(fleet):
    """All are committed, although a node is cut off three times and the server's side twice, at random moments."""
    superlink, nodes = fleet.start_superlink(), fleet.start_nodes(0, 1)
    results = fleet.folder / "results"
    flags = "--rounds 20 --min_num_clients 1 --mnist --epochs 1"
    run = fleet.run(f"{flags} --results_dir {results}")
    moments = random.Random(7)
    for after, kind in {3: "node", 6: "server", 10: "node", 13: "server", 16: "node"}.items():
        wait_until(lambda: run.popen.poll() is not None or committed(results)[-1:] >= [after])  # noqa: B023
        time.sleep(moments.uniform(0, 20))
        assert run.popen.poll() is None, fleet.logs()
        if kind == "node":
            cid = moments.choice([0, 1])
            fleet.cut_off(nodes[cid])
            nodes.update(fleet.start_nodes(cid))
            continue
        fleet.cut_off(superlink)
        run.exit_code()
        superlink = fleet.start_superlink()
        for cid, node in nodes.items():
            node.exit_code()
            nodes.update(fleet.start_nodes(cid))
        run = fleet.run(f"{flags} --resume {results}")
    assert run.exit_code(2 * RUN_DEADLINE) == 0, fleet.logs()
    assert "20 of 20 rounds done" in run.output
    assert committed(results) == [*range(1, 21)]

"""Flower's Deployment Engine: flower_app.py on a real SuperLink and real SuperNodes, which a test may kill."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

from federation.results import checkpoint
from federation.results.tables import read_table

import pytest
from deployment import Fleet
from processes import DEADLINE, federate

pytestmark = pytest.mark.slow  # for each message, a SuperNode starts a process: 5 to 40 s on a busy laptop
RUN_DEADLINE = 4 * DEADLINE  # of a run of a few rounds


@pytest.fixture
def fleet(tmp_path_factory, mnist) -> Iterator[Fleet]:
    """A fleet that is not started yet; in a folder with a short name, because that of a socket may have 107 bytes."""
    with Fleet(tmp_path_factory.mktemp("fleet"), mnist) as fleet:
        yield fleet


def model(results: Path) -> list[bytes]:
    return [array.tobytes() for array in checkpoint.load(results).model]


def committed(results: Path) -> list[int]:
    """The rounds in rounds.csv."""
    table = results / "rounds.csv"
    return [int(row["round"]) for row in read_table(table)] if table.exists() else []


@pytest.mark.parametrize("framework", ["pytorch", "onnx"])
def test_the_same_seed_gives_the_model_of_server_py(fleet, processes, mnist, framework):
    fleet.start_superlink()
    nodes = fleet.start_nodes(0, 1)
    flags = f"--rounds 1 --min_num_clients 2 --mnist --seed 7 --train_with {framework}"
    run = fleet.run(f"{flags} --results_dir {fleet.folder / 'results'}")
    assert run.exit_code(RUN_DEADLINE) == 0, fleet.logs()
    assert run.output.count("2 results and 0 failures") == 1, fleet.logs()
    assert fleet.statuses() == ["finished:completed"]
    (threads,) = {each for node in nodes.values() for each in re.findall(r"training on (\d+) of", node.output)}
    client = "--mnist", "--num_clients", 2, "--data_dir", mnist, "--threads", threads  # sums depend on their number
    by_server_py = federate(processes, f"client_{framework}.py", ("--rounds", 1, "--seed", 7), client)
    assert model(fleet.folder / "results") == model(by_server_py.results)


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


def test_what_does_not_fit_is_told_on_both_sides(fleet, tmp_path):
    fleet.start_superlink()
    (tmp_path / "nothing").mkdir()
    odd = fleet.start_node(num_partitions=2)
    poor = fleet.start_node(partition_id=0, num_partitions=2, data_dir=f"{tmp_path}/nothing")
    run = fleet.run(f"--rounds 1 --min_num_clients 1 --mnist --wait_timeout 300 --results_dir {fleet.folder}/results")
    reasons = {
        odd: "its --node-config has no 'partition-id'",
        poor: "Cannot prepare the data: the reason is above, or in the SuperNode's log",
    }
    for node, reason in reasons.items():
        run.wait_for(f"cannot take part: {reason}", RUN_DEADLINE)
        assert f"cannot answer: {reason}" in node.output
    assert f"There is no mnist in {tmp_path}/nothing/mnist, and it cannot be downloaded" in poor.output
    run.exit_code(RUN_DEADLINE)  # Flower's, 0 whatever became of the run
    wrong = fleet.run("--rounds many")
    wrong.exit_code()
    assert "argument --rounds: must be a whole number, at least 1, not 'many'" in wrong.output
    assert fleet.statuses() == ["finished:failed"] * 2

"""The rounds with an engine's nodes: results as server.py has them, and an error for the engine if not all came off."""

from __future__ import annotations

from pathlib import Path

from federation.engine import nodes as module
from federation.engine.nodes import Nodes
from federation.engine.serverapp import parse_flags, run_rounds
from federation.flags import ArgumentParser, Failure
from federation.results import checkpoint
from federation.results.report import Report
from federation.results.tables import read_table
from federation.server.strategy import DeviceFedAvg

import pytest
from engines import FakeGrid, Node
from fakes import MODEL, fit_result, identity, run_settings

CIDS = 1, 2


@pytest.fixture
def nodes(monkeypatch) -> Nodes:
    """Two nodes, whose fits add their cid to each number of the model."""
    for name, seconds in {"LOOK_EVERY": 0, "PAUSE": 0.001}.items():
        monkeypatch.setattr(module, name, seconds)
    crowd = {
        cid + 70: Node(identity(cid), fit=lambda ins, cid=cid: fit_result([a + cid for a in MODEL])) for cid in CIDS
    }
    return Nodes(FakeGrid(crowd), {"script": "client_x"})


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes seconds."""
    monkeypatch.setattr(Report, "draw", lambda report: None)


def strategy(**arguments) -> DeviceFedAvg:
    return DeviceFedAvg(min_fit_clients=1, min_evaluate_clients=1, min_available_clients=1, **arguments)


def test_the_rounds_come_off(nodes, tmp_path, capsys):
    run_rounds(strategy(), run_settings(tmp_path, num_rounds=2), nodes)
    assert [row["clients"] for row in read_table(tmp_path / "rounds.csv")] == ["2", "2"]
    kept = checkpoint.load(tmp_path)
    assert kept.committed == 2 and kept.model[1].tolist() == [8.5, 9.5]  # MODEL, and the mean of 1 and 2
    assert (tmp_path / "history.png").exists()
    told = capsys.readouterr().out
    assert told.endswith(f"2 of 2 rounds done, results in {tmp_path}\n") and "client 1 on pi1 has joined" in told
    assert nodes.is_over.is_set()


def test_rounds_that_do_not_come_off_are_an_error_for_the_engine(nodes, undrawn, tmp_path, capsys):
    with pytest.raises(Failure, match=r"^only 2 of 3 clients were connected after 0\.5 s \(--wait_timeout\)"):
        run_rounds(strategy(), run_settings(tmp_path, num_rounds=2, min_num_clients=3, wait_timeout=0.5), nodes)
    assert capsys.readouterr().out.endswith(f"0 of 2 rounds done, results in {tmp_path}\n")
    assert nodes.is_over.is_set()


def test_results_that_cannot_be_written(nodes, undrawn, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="^cannot write results: "):
        run_rounds(strategy(), run_settings(tmp_path / "file"), nodes)


def parser() -> ArgumentParser:
    parser = ArgumentParser("An engine.", prog="flower_app.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min_num_clients", type=int, default=2)
    return parser


def test_the_flags_of_a_run_are_one_string():
    args, settings = parse_flags(parser(), "--rounds 5 --results_dir 'in a folder'")
    assert (args.rounds, settings.num_rounds, settings.results_dir) == (5, 5, Path("in a folder"))


@pytest.mark.parametrize("flags", ["--rounds many", "--no_such_flag", "--help", "--results_dir 'x"])
def test_flags_that_will_not_do_are_an_error_and_no_end_of_the_process(flags):
    with pytest.raises(ValueError, match="cannot use flags=|No closing quotation"):
        parse_flags(parser(), flags)

"""Comparing runs: the accuracy that counts, the table, the picture, and the command's sentences."""

from __future__ import annotations

import sys

from federation.results import compare
from federation.results.compare import TESTED_ON, Comparison, read_run
from federation.results.report import TABLES
from federation.results.tables import Table

import pytest


def write_run(folder, central=(), clients=(), seconds=1.5, costs=()):
    """Write the tables of a run whose rounds have these accuracies; `costs` are rows of clients.csv, by column."""
    folder.mkdir(parents=True, exist_ok=True)
    rounds = Table(folder / "rounds.csv", TABLES["rounds.csv"])
    for i in range(max(len(central), len(clients))):
        known = {"central_accuracy": [*central, *[""] * 99][i], "accuracy": [*clients, *[""] * 99][i]}
        rounds.add([{"round": i + 1, "seconds": seconds if i else 1.5, **known}])
    rounds.save()
    table = Table(folder / "clients.csv", TABLES["clients.csv"])
    table.add(costs)
    table.save()
    return folder


def compared(*folders, accuracy=None) -> Comparison:
    return Comparison([read_run(folder) for folder in folders], accuracy)


def cells(comparison: Comparison) -> list[list[str]]:
    """The cells of the table's lines after the folders, the headings left out."""
    return [line.split()[1:] for line in comparison.table().splitlines()[2:]]


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slow = write_run(tmp_path / "slow", [0.5, 0.7, 0.9, 0.85], seconds=1).relative_to(tmp_path)
    fast = write_run(tmp_path / "b/fast", [0.89, 0.95, 0.94], seconds=20.25).relative_to(tmp_path)
    assert compared(slow, fast).table().splitlines() == [
        "Until an accuracy of 0.9 on the server's test images:",
        "run     rounds  seconds  megabytes  joules    best    last",
        "slow         3      3.5          -       -  0.9000  0.8500",
        "b/fast       2     21.8          -       -  0.9500  0.9400",
    ]
    comparison = compared(slow, fast, accuracy=0.95)
    assert comparison.table().startswith("Until an accuracy of 0.95 on the server's test images:\n")
    assert cells(comparison)[0] == ["-", "-", "-", "-", "0.9000", "0.8500"]


@pytest.mark.parametrize("value", [0.9, 0.8999999761581421, 0.8999999999])
def test_an_accuracy_is_reached_in_whatever_way_it_was_rounded(tmp_path, value):
    folder = write_run(tmp_path / "run", [value])
    assert cells(compared(folder, accuracy=0.9))[0][0] == "1"
    assert compared(folder).accuracy == 0.9 and cells(compared(folder))[0][0] == "1"


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        ({"central": [0.9], "clients": [0.8]}, {"central": [0.9], "clients": [0.7]}, "central_accuracy"),
        ({"central": [0.9], "clients": [0.8]}, {"clients": [0.7]}, "accuracy"),
        ({"central": [0.9], "clients": [0.8]}, {}, "central_accuracy"),  # its first round is not over
    ],
)
def test_whose_accuracy_counts(tmp_path, first, second, column):
    comparison = compared(write_run(tmp_path / "a", **first), write_run(tmp_path / "b", **second))
    assert comparison.table().splitlines()[0].endswith(f" on {TESTED_ON[column]}:")


def test_what_is_not_known(tmp_path):
    costs = [
        {"round": 1, "cid": 0, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": 10},
        {"round": 1, "cid": 1, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": ""},
        {"round": 2, "cid": 0, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": 20.4},
        {"round": 3, "cid": 0, "sent_mb": 1000, "received_mb": 0, "energy_j": 1000},
    ]
    known = write_run(tmp_path / "known", [0.5, 0.9, 0.9], costs=costs)
    resumed = write_run(tmp_path / "resumed", [0.5, "nan", 0.9], seconds="")
    comparison = compared(known, resumed, write_run(tmp_path / "new"))
    assert cells(comparison) == [
        ["2", "3.0", "3.8", "30.4", "0.9000", "0.9000"],
        ["3", "1.5", "-", "-", "0.9000", "0.9000"],
        ["-", "-", "-", "-", "-", "-"],
    ]


def test_the_picture(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    axhline = Axes.axhline
    monkeypatch.setattr(Axes, "axhline", lambda axis, *args, **kw: (drawn.append(axis), axhline(axis, *args, **kw)))
    first, second = write_run(tmp_path / "first", [0.5, "", 0.9], seconds=2), write_run(tmp_path / "second", [0.8])
    others = [write_run(tmp_path / f"{i} with a name that needs much room", [0.5]) for i in range(20)]
    compared(first, second, *others).draw(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    (axis,), (legend,) = drawn, drawn[0].figure.legends
    curves = [[tuple(map(float, point)) for point in line.get_xydata()] for line in axis.get_lines()]
    assert curves[:2] == [[(1.5, 0.5), (5.5, 0.9)], [(1.5, 0.8)]] and curves[-1][0][1] == 0.5  # at the accuracy
    assert [text.get_text() for text in legend.get_texts()] == [*map(str, (first, second, *others)), "accuracy 0.5"]
    assert legend.get_window_extent().y1 <= axis.get_tightbbox().y0 and axis.get_window_extent().height > 200


def run_command(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """The exit code of the command, its output, and what went to stderr."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, words)])
    code = 0
    try:
        compare.main()
    except SystemExit as end:
        code = int(str(end.code))
    return code, *capsys.readouterr()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", [0.9])
    code, output, errors = run_command(monkeypatch, capsys, "~/run", "--accuracy=0.8")
    assert (code, errors) == (0, "") and output.startswith("Until an accuracy of 0.8 on ")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    code, output, errors = run_command(monkeypatch, capsys, "run", "--picture=~/new.svg")
    assert (code, errors) == (0, "") and output.endswith(f"drawn in {tmp_path / 'new.svg'}\n")
    assert b"<svg" in (tmp_path / "new.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("", 2, "the following arguments are required: FOLDER"),
        ("run nowhere", 2, "cannot use nowhere: it has no rounds.csv"),
        ("damaged", 2, "cannot use damaged: rounds.csv is damaged, or not a table of a run"),
        ("odd", 2, "odd/rounds.csv: Is a directory"),
        ("new --accuracy 0.9", 2, "none of these runs has an accuracy yet"),
        ("run --accuracy 90", 2, "argument --accuracy: must be a number above 0, at most 1, not '90'"),
        ("run --picture odd", 1, "compare.py: cannot draw odd: "),
        ("run --picture mine.txt", 1, "compare.py: cannot draw mine.txt: Format 'txt' is not supported"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, monkeypatch, capsys, words, code, sentence):
    monkeypatch.chdir(tmp_path)
    for name, accuracies in (("run", [0.9]), ("new", []), ("damaged", [0.9])):
        write_run(tmp_path / name, accuracies)
    (tmp_path / "damaged/rounds.csv").write_bytes(b"round\n\xff\n")
    (tmp_path / "odd/rounds.csv").mkdir(parents=True)
    (tmp_path / "mine.txt").write_text("mine")
    found, _, errors = run_command(monkeypatch, capsys, *words.split())
    assert (found, errors.count("\n")) == (code, 1) and sentence in errors
    assert (tmp_path / "mine.txt").read_text() == "mine"

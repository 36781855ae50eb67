"""Comparing runs: what is read, the accuracy that counts, the table, the picture, and the command's sentences."""

from __future__ import annotations

import builtins
import subprocess
import sys

from federation import files
from federation.results import compare
from federation.results.compare import COLOURS, TESTED_ON, Comparison, png, read_run
from federation.results.report import TABLES
from federation.results.tables import Table

import pytest
from processes import ROOT


def write_run(folder, central=(), clients=(), seconds=1.5, costs=()):
    """Write the tables of a run whose rounds have these accuracies; `costs` are rows of clients.csv, by column."""
    folder.mkdir(parents=True, exist_ok=True)
    rounds = Table(folder / "rounds.csv", TABLES["rounds.csv"])
    for i in range(max(len(central), len(clients))):
        known = {"central_accuracy": [*central, *[""] * 99][i], "accuracy": [*clients, *[""] * 99][i]}
        rounds.add([{"round": i + 1, "seconds": seconds, **known}])
    rounds.save()
    table = Table(folder / "clients.csv", TABLES["clients.csv"])
    table.add(costs)
    table.save()
    return folder


def compared(*folders, accuracy=None) -> Comparison:
    return Comparison([read_run(folder) for folder in folders], accuracy)


def cells(comparison: Comparison) -> list[list[str]]:
    """The cells of the table's lines, the heading and notes left out."""
    return [line.split() for line in comparison.table().splitlines() if not line.startswith(("Until", "+"))]


def test_the_table(tmp_path):
    slow = write_run(tmp_path / "slow", [0.5, 0.7, 0.9, 0.85], seconds=1)
    fast = write_run(tmp_path / "fast", [0.89, 0.95, 0.94], seconds=20.25)
    assert compared(slow, fast).table().splitlines() == [
        "Until an accuracy of 0.9 (the highest that all reach) on the server's test images:",
        "run   rounds  seconds    best    last",
        "slow       3      3.0  0.9000  0.8500",
        "fast       2     40.5  0.9500  0.9400",
    ]


def test_an_accuracy_that_is_asked_for(tmp_path):
    folders = write_run(tmp_path / "slow", [0.5, 0.7]), write_run(tmp_path / "fast", [0.7, 0.9])
    comparison = compared(*folders, accuracy=0.9)
    assert comparison.table().startswith("Until an accuracy of 0.9 on the server's test images:\n")
    assert cells(comparison)[1:] == [
        ["slow", "-", "-", "0.7000", "0.7000"],
        ["fast", "2", "3.0", "0.9000", "0.9000"],
    ]
    assert cells(compared(*folders, accuracy=0.99))[1][1] == "-"


@pytest.mark.parametrize("value", [0.9, 0.8999999761581421, 0.8999999999])
def test_an_accuracy_is_reached_in_whatever_way_it_was_rounded(tmp_path, value):
    folder = write_run(tmp_path / "run", [value])
    assert cells(compared(folder, accuracy=0.9))[1][1] == "1"
    assert compared(folder).accuracy == 0.9 and cells(compared(folder))[1][1] == "1"


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        ({"central": [0.9], "clients": [0.8]}, {"central": [0.9], "clients": [0.7]}, "central_accuracy"),
        ({"central": [0.9], "clients": [0.8]}, {"clients": [0.7]}, "accuracy"),
        ({"central": [0.9], "clients": [0.8]}, {"central": [0.7]}, "central_accuracy"),
        ({"central": [0.9], "clients": [0.8]}, {}, "central_accuracy"),  # its first round is not over
        ({"clients": [0.8]}, {"clients": [0.7]}, "accuracy"),
    ],
)
def test_whose_accuracy_counts(tmp_path, first, second, column):
    comparison = compared(write_run(tmp_path / "a", **first), write_run(tmp_path / "b", **second))
    assert comparison.column == column
    assert comparison.table().splitlines()[0].endswith(f" on {TESTED_ON[column]}:")


def test_a_run_without_an_accuracy_has_dashes(tmp_path):
    folders = write_run(tmp_path / "new"), write_run(tmp_path / "old", [0.9])
    assert cells(compared(*folders))[1:] == [["new", "-", "-", "-", "-"], ["old", "1", "1.5", "0.9000", "0.9000"]]


@pytest.mark.parametrize("word", ["nan", "inf", "x", ""])
def test_what_is_no_number_is_no_accuracy(tmp_path, word):
    comparison = compared(write_run(tmp_path / "run", ["0.5", word, "0.75", word]))
    assert comparison.curves == [{1: 0.5, 3: 0.75}] and comparison.accuracy == 0.75
    assert cells(comparison)[1] == ["run", "3", "4.5", "0.7500", "0.7500"]


def test_megabytes_and_joules_where_they_are_known(tmp_path):
    costs = [
        {"round": 1, "cid": 0, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": 10},
        {"round": 1, "cid": 1, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": ""},
        {"round": 2, "cid": 0, "sent_mb": 0.75, "received_mb": 0.5, "energy_j": 20.4},
        {"round": 3, "cid": 0, "sent_mb": 1000, "received_mb": 0, "energy_j": 1000},
    ]
    known = write_run(tmp_path / "known", [0.5, 0.9, 0.9], costs=costs)
    unknown = write_run(tmp_path / "unknown", [0.9])
    comparison = compared(known, unknown)
    assert cells(comparison) == [
        ["run", "rounds", "seconds", "megabytes", "joules", "best", "last"],
        ["known", "2", "3.0", "3.8", "30+", "0.9000", "0.9000"],
        ["unknown", "1", "1.5", "0.9000", "0.9000"],
    ]
    assert comparison.table().splitlines()[-1].startswith("+ and more")
    assert len({len(line) for line in comparison.table().splitlines()[1:-1]}) == 1  # what is unknown is blank
    assert "joules" not in compared(unknown).table()


def test_seconds_that_are_not_all_known_are_a_lower_bound(tmp_path):
    folder = write_run(tmp_path / "resumed", [0.5, 0.7, 0.9])
    text = (folder / "rounds.csv").read_text()
    assert text.count(",1.5") == 3
    (folder / "rounds.csv").write_text(text.replace("2,,,,,,0.7,1.5", "2,,,,,,0.7,"))
    assert cells(compared(folder))[1][2] == "3.0+"
    (folder / "rounds.csv").write_text(text.replace("2,,,,,,0.7,1.5", "2,,,\0\0"))  # its row is damaged
    assert cells(compared(folder))[1][1:3] == ["3", "3.0+"]


def test_tables_from_elsewhere(tmp_path):
    folder = write_run(tmp_path / "excel")
    table = "round;central_accuracy;seconds\n3;0,9;1,5\n1;0,5;1,5\n2;0,7;1,5\nsum;;4,5\n"
    (folder / "rounds.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())  # sorted by something
    (folder / "clients.csv").unlink()
    assert cells(compared(folder))[1] == ["excel", "3", "4.5", "0.9000", "0.9000"]
    assert list(compared(folder).curves[0]) == [1, 2, 3]


def test_runs_are_told_apart_by_the_ends_of_their_paths(tmp_path, monkeypatch):
    paths = "x/a/run", "x/b/run", "y/b/run", "x/other"
    folders = [write_run(tmp_path / path, [0.9]) for path in paths]
    assert compared(*folders).names == ["a/run", "x/b/run", "y/b/run", "other"]
    assert compared(folders[0]).names == ["run"]
    monkeypatch.chdir(folders[0])
    assert compared(folders[0] / "../../a/run").names == ["run"]
    relative = Comparison([read_run(folders[0].relative_to(tmp_path / "x/a/run"))], None)
    assert relative.names == ["run"]


def test_the_same_folder_twice_is_one_run(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", [0.9])
    monkeypatch.chdir(tmp_path)
    same = folder, folder / "../run", folder / "rounds.csv", folder.relative_to(tmp_path)
    assert len(cells(compared(*same))) == 2


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn from now on."""
    from matplotlib import figure

    drawn = []

    class Watched(figure.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            drawn.append(self)

    monkeypatch.setattr(figure, "Figure", Watched)
    return drawn


def test_the_picture(tmp_path, figures):
    first = write_run(tmp_path / "_first$a$", [0.5, "", 0.9], seconds=2)
    second = write_run(tmp_path / "second", [0.8])
    compared(first, second).draw(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    by_round, by_seconds = figure.axes
    curves = [[tuple(map(float, point)) for point in line.get_xydata()] for line in by_round.get_lines()]
    assert curves[:2] == [[(1, 0.5), (3, 0.9)], [(1, 0.8)]] and curves[2][0][1] == 0.8  # and the line at the accuracy
    curves = [[tuple(map(float, point)) for point in line.get_xydata()] for line in by_seconds.get_lines()]
    assert curves[:2] == [[(2, 0.5), (6, 0.9)], [(1.5, 0.8)]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"_first\$a\$", "second", "accuracy 0.8"]


def test_the_picture_has_joules_where_all_clients_tell_them(tmp_path, figures):
    def energies(*values):
        return [{"round": 1 + i // 2, "cid": i % 2, "energy_j": value} for i, value in enumerate(values)]

    folders = [
        write_run(tmp_path / "all", [0.5, 0.7, 0.9], costs=energies(1, 2, 3, 4, 5, 6)),
        write_run(tmp_path / "some", [0.5, 0.7, 0.9], costs=energies(10, 20, 30, "", 50, 60)),
        write_run(tmp_path / "none", [0.5, 0.7, 0.9]),
    ]
    compared(*folders).draw(tmp_path / "comparison.png")
    by_joules = figures[0].axes[2]
    assert by_joules.get_xlabel() == "joules" and by_joules.get_xlim()[0] == 0
    curves = [[x for x in line.get_xdata() if x == x] for line in by_joules.get_lines()[:-1]]
    assert curves == [[3, 10, 21], [30], []]
    compared(folders[2]).draw(tmp_path / "comparison.png")
    assert len(figures[1].axes) == 2


def test_many_runs_look_different(tmp_path, figures, capfd):
    folders = [write_run(tmp_path / f"日本 {i}", [0.5, 0.9]) for i in range(2 * len(COLOURS))]
    compared(*folders).draw(tmp_path / "comparison.png")
    lines = figures[0].axes[0].get_lines()[:-1]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(folders)
    assert len({line.get_marker() for line in lines}) == len(COLOURS)
    assert "Warning" not in capfd.readouterr().err


def test_only_a_picture_that_was_made_here_is_replaced(tmp_path):
    picture = tmp_path / "new folder" / "comparison.png"
    folder = write_run(tmp_path / "run", [0.9])
    for _ in range(2):
        compared(folder).draw(png(picture))
    for content in (b"", b"\x89PNG holiday"):
        picture.write_bytes(content)
        with pytest.raises(ValueError, match="it is there already"):
            png(picture)
    with pytest.raises(ValueError, match=r"has to end in \.png"):
        png(tmp_path / "comparison.pdf")


def run_command(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """Return the exit code of the command, its output, and what went to stderr."""
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
    code, output, errors = run_command(monkeypatch, capsys, "~/run", "--accuracy=0.8", "--picture=~/new.png")
    assert (code, errors) == (0, "")
    assert output.startswith("Until an accuracy of 0.8 on ") and output.endswith(f"drawn in {tmp_path / 'new.png'}\n")
    assert run_command(monkeypatch, capsys, "run")[1].endswith("drawn in comparison.png\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.png", "new.png", "run"]


MISTAKES = {
    "": "the following arguments are required: FOLDER",
    "nowhere": "/nowhere: No such file or directory",
    "nowhere/rounds.csv": "/nowhere: No such file or directory",
    "empty": "argument FOLDER: cannot use empty: it has no rounds.csv",
    "empty/file": "/empty/file: Not a directory",
    "odd": "/odd/rounds.csv: Is a directory",
    "run empty": "argument FOLDER: cannot use empty",
    "new": "no accuracy is known yet of any of these runs",
    "new --accuracy 0.9": "no accuracy is known yet of any of these runs",
    "run --accuracy 90": "argument --accuracy: must be a number above 0, at most 1, not '90'",
    "run --accuracy nan": "argument --accuracy: must be a number above 0, at most 1, not 'nan'",
    "run --picture x.svg": "argument --picture: cannot use x.svg: the picture is a PNG file",
    "run --picture odd.png": "argument --picture: cannot read odd.png: Is a directory",
    "run --picture mine.png": "argument --picture: cannot use mine.png: it is there already",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_end_with_code_2_and_one_sentence(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", [0.9])
    write_run(tmp_path / "new")
    for folder in ("empty", "odd/rounds.csv", "odd.png"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("empty/file", "mine.png"):
        (tmp_path / name).write_text("mine")
    code, output, errors = run_command(monkeypatch, capsys, *words.split())
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("compare.py: ") and MISTAKES[words] in errors
    assert (tmp_path / "mine.png").read_text() == "mine" and not (tmp_path / "comparison.png").exists()


def test_somebodys_picture_with_the_usual_name_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comparison.png").write_bytes(b"mine")
    code, _, errors = run_command(monkeypatch, capsys, write_run(tmp_path / "run", [0.9]))
    assert code == 2 and "cannot use comparison.png: it is there already" in errors
    assert (tmp_path / "comparison.png").read_bytes() == b"mine"


@pytest.mark.parametrize("trouble", ["full disk", "no matplotlib"])
def test_without_the_picture_there_is_still_the_table(tmp_path, monkeypatch, capsys, trouble):
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "run", [0.9])
    import_module = builtins.__import__

    def no_matplotlib(name, *rest):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return import_module(name, *rest)

    def full(file):
        raise OSError(28, "No space left on device")

    if trouble == "full disk":
        monkeypatch.setattr(files, "_sync", full)
    else:
        monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    code, output, errors = run_command(monkeypatch, capsys, folder)
    reason = {"full disk": "[Errno 28] No space left on device", "no matplotlib": "No module named 'matplotlib'"}
    assert code == 1 and output.startswith("Until an accuracy of 0.9 ") and "drawn" not in output
    assert errors == f"compare.py: cannot draw comparison.png: {reason[trouble]}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_table_needs_neither_flower_nor_numpy_nor_matplotlib(tmp_path):
    script = (
        "import sys; from pathlib import Path; from federation.results.compare import *; "
        "print(Comparison([read_run(Path(sys.argv[1]))], None).table()); "
        "print(sorted({'flwr', 'numpy', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, write_run(tmp_path / "run", [0.9])]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "run       1" in output and output.endswith("[]\n")

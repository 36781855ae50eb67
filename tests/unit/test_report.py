"""The report: tables of a new and of a resumed run, a row for each client, the line of a round, the picture."""

from __future__ import annotations

import re
from dataclasses import asdict

from federation.results.chart import draw_history
from federation.results.checkpoint import Checkpoint
from federation.results.report import TABLES, Report
from federation.results.tables import read_table

import pytest
from fakes import MODEL, FakeClient, evaluation, fit_result, identity

HEADERS = {name: ",".join(columns) + "\r\n" for name, columns in TABLES.items()}


def member(cid: int, connection: str = "") -> FakeClient:
    """A client that the client manager has admitted."""
    client = FakeClient(connection or f"connection of {cid}", identity(cid))
    client.properties = asdict(client.identity)
    return client


def write_tables(folder, **rows: str) -> None:
    for name, text in rows.items():
        (folder / f"{name}.csv").write_bytes((HEADERS[f"{name}.csv"] + text).encode())


def add_round(report: Report, server_round: int, *clients: FakeClient) -> None:
    report.start_round(server_round)
    for client in clients:
        report.add_fit(client, fit_result(MODEL, 20, train_loss=0.5, seconds=1.5))
        report.add_evaluation(client, evaluation(0.75, 5, accuracy=0.9, seconds=0.1))
    classes = [{"label": 7, "class": "seven", "examples": 5, "accuracy": 0.8}]
    report.add_central_evaluation(0.5, {"accuracy": 0.8, "classes": classes})
    report.end_round(len(clients), 0, 0.75, 0.9)


def numbers_in(path) -> list[str]:
    return [row["round"] for row in read_table(path)]


def in_the_way(path) -> None:
    """Put something there that no file can replace, as no file replaces one that is open in Excel."""
    path.unlink()
    path.mkdir()


def test_a_new_run_makes_its_tables(tmp_path):
    folder = tmp_path / "results" / "today"
    Report(folder)
    assert {path.name: path.read_bytes().decode() for path in folder.iterdir()} == HEADERS


@pytest.mark.parametrize("name", TABLES)
def test_results_of_another_run_are_not_touched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError):
        Report(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_round_is_told(tmp_path, capsys):
    report = Report(tmp_path)
    report.start_round(4)
    report.add_central_evaluation(0.25, {"accuracy": 0.95, "classes": 10})  # of somebody's own strategy
    power = {"energy_j": 12.5, "power_w": 3.125, "power_source": "PMIC", "throttled": "no"}
    report.add_fit(member(1), fit_result(MODEL, 20, train_loss=0.5, seconds=1.5, temperature_c=61.5, **power))
    report.add_fit(member(0), fit_result(MODEL, 10, secret=1.0, temperature_c="=1+1", peak_memory_mb=200))
    report.add_evaluation(member(1, "a new connection"), evaluation(0.75, 5, accuracy=0.9, seconds=0.1, sent_mb=99))
    report.add_traffic([(member(1), 2_000_000, 0), (member(2), 5, 0), (member(1), 0, 1_250_000), (member(1), 1, 0)])
    assert read_table(tmp_path / "rounds.csv") == []  # it is added as a whole
    report.end_round(2, 1, 0.75, None)
    losses = "loss 0.7500, central loss 0.2500, central accuracy 0.9500"
    expected = rf"round 4: 2 results and 1 failures, {losses}, 3\.25 MB, \d\.\d s\n"
    assert re.fullmatch(expected, capsys.readouterr().out)
    (row,) = read_table(tmp_path / "rounds.csv")
    assert 0 <= float(row.pop("seconds")) < 5
    assert [*row.values()] == ["4", "2", "1", "0.75", "", "0.25", "0.95"]
    figures = "20,,0.75,0.9,1.5,0.5,,61.5,12.5,3.125,PMIC,no,2.000001,1.25"  # seconds: of the fit
    assert (tmp_path / "clients.csv").read_text().splitlines()[1:] == [
        "4,0,pi0,10,,,,,,200,,,,,,,",
        f"4,1,pi1,{figures}",
        "4,2,pi2,,,,,,,,,,,,,5e-06,0.0",  # it was asked, and did not answer
    ]
    assert {key[1]: row.get("seconds") for key, row in report.latest.items()} == {0: None, 1: 1.5, 2: None}


def test_accuracies_by_class_have_a_table_of_their_own(tmp_path):
    report = Report(tmp_path)
    add_round(report, 1)
    report.start_round(2)  # without an evaluation on the server
    report.end_round(1, 0, 0.75, None)
    assert (tmp_path / "classes.csv").read_bytes().decode() == HEADERS["classes.csv"] + "1,7,seven,5,0.8\r\n"


def test_no_figures_that_nobody_reported(tmp_path, capsys):
    report = Report(tmp_path)
    report.start_round(1)
    report.add_evaluation(FakeClient("one"), evaluation(0.75, 5, seconds=0.1))
    report.add_evaluation(FakeClient("another"), evaluation(0.5, 5, seconds=0.1))
    report.end_round(0, 3, None, None)
    assert re.fullmatch(r"round 1: 0 results and 3 failures, 0\.00 MB, \d\.\d s\n", capsys.readouterr().out)
    assert read_table(tmp_path / "rounds.csv")[0]["loss"] == ""
    rows = read_table(tmp_path / "clients.csv")  # plain Flower clients; seconds are those of a fit
    assert sorted((row["cid"], row["loss"], row["seconds"]) for row in rows) == [("", "0.5", ""), ("", "0.75", "")]


def test_a_metric_cannot_pose_as_a_figure_of_the_report_nor_break_a_table(tmp_path):
    report = Report(tmp_path)
    report.start_round(3)
    texts = 'a,"b"\r\n2,0\x1b[2J\u2028c', "x" * 1000, 5
    for cid, text in enumerate(texts):
        lies = {"round": 7, "examples": 1000, "cid": 5, "train_loss": True, "energy_j": "12", "power_w": b"3"}
        report.add_fit(member(cid), fit_result(MODEL, 20, throttled=text, **lies))
    report.end_round(3, 0, 0.75, None)
    rows = read_table(tmp_path / "clients.csv")
    assert [(row["cid"], row["throttled"]) for row in rows] == [("0", 'a,"b"  2,0 [2J c'), ("1", "x" * 300), ("2", "")]
    figures = {(row["round"], row["examples"], row["train_loss"], row["energy_j"], row["power_w"]) for row in rows}
    assert figures == {("3", "20", "", "", "")}


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path):
    kept = {"rounds": "1,2,0,0.5,,,,1.5\r\n", "clients": f"1,0,pi0{',' * 14}\r\n", "classes": "1,7,seven,5,0.1\r\n"}
    write_tables(tmp_path, **{name: f"{row}2{row[1:]}" for name, row in kept.items()})
    report = Report(tmp_path, Checkpoint(MODEL, round=1, results=2))
    for name, row in kept.items():
        assert (tmp_path / f"{name}.csv").read_bytes().decode() == HEADERS[f"{name}.csv"] + row
    assert report.durations == [1.5] and report.round.number == 1
    add_round(report, 2, member(0))
    assert all(numbers_in(tmp_path / name) == ["1", "2"] for name in TABLES)


def test_a_round_without_its_row_gets_one(tmp_path):
    write_tables(tmp_path, rounds="1,2,0,0.5,,,,1.5\r\n")  # clients.csv is missing
    report = Report(tmp_path, Checkpoint(MODEL, round=2, results=5, failures=3))
    rows = [
        [row[name] for name in ("round", "clients", "failures", "seconds")]
        for row in read_table(tmp_path / "rounds.csv")
    ]
    assert rows == [["1", "2", "0", "1.5"], ["2", "5", "3", ""]] and report.durations == [1.5]
    assert numbers_in(tmp_path / "clients.csv") == []


def test_no_row_is_made_up_for_a_run_without_a_checkpoint(tmp_path):
    write_tables(tmp_path, rounds="1,0,2,,,,,1.5\r\n")
    Report(tmp_path, Checkpoint())
    assert read_table(tmp_path / "rounds.csv") == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_written_for_a_while(tmp_path, capsys, name):
    report = Report(tmp_path)
    add_round(report, 1, member(0))
    in_the_way(tmp_path / name)
    for server_round in (2, 3):
        add_round(report, server_round, member(0))
    line = (
        f"cannot write {tmp_path / name} (Is a directory): its last rounds are missing until a later write succeeds\n"
    )
    assert capsys.readouterr().out.count(line) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name not in TABLES] == []  # nothing half done
    with pytest.raises(OSError):
        Report(tmp_path, Checkpoint(MODEL, round=1))
    (tmp_path / name).rmdir()
    report.save()
    assert capsys.readouterr() == ("", "")
    assert all(numbers_in(tmp_path / table) == ["1", "2", "3"] for table in TABLES)


def picture_of(folder, monkeypatch) -> list[tuple[list[tuple[str, list]], bool]]:
    """Draw history.png; return the last point of each curve by its label, and whether there is a legend, by axis."""
    from matplotlib.axes import Axes

    axes = []
    set_title = Axes.set
    monkeypatch.setattr(Axes, "set", lambda axis, **settings: (axes.append(axis), set_title(axis, **settings))[1])
    draw_history(folder)
    monkeypatch.undo()
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")
    curves = [{line.get_label(): tuple(line.get_xydata()[-1]) for line in axis.get_lines()} for axis in axes]
    return [(curve, axis.get_legend() is not None) for curve, axis in zip(curves, axes)]


def test_no_picture_where_no_run_is(tmp_path):
    with pytest.raises(ValueError, match="it has no rounds.csv"):
        draw_history(tmp_path / "nowhere")
    assert [*tmp_path.iterdir()] == []


def test_the_picture(tmp_path, monkeypatch):
    write_tables(tmp_path, rounds="1,0,2,,,,,1.5\r\n", clients="")
    assert picture_of(tmp_path, monkeypatch) == [({}, False)] * 3
    times = ("1,,,", 9), ("1,10,pi,", 3), ("2,10,pi,", ""), ("1,9,pi,", 4)  # the first is a plain Flower client's
    clients = "".join(f"{who}20,,,,{seconds}{',' * 9}\r\n" for who, seconds in times)
    write_tables(tmp_path, rounds="1,2,0,,0.5,nan,0.5,1.5\r\n2,2,0,0.25,0.75,,,1.5\r\n", clients=clients)
    validation, test = "clients' validation images", "test images, on the server"
    assert picture_of(tmp_path, monkeypatch) == [
        ({validation: (2, 0.25)}, True),
        ({validation: (2, 0.75), test: (1, 0.5)}, True),
        ({"client 9": (1, 4), "client 10": (1, 3)}, True),
    ]


def test_the_picture_is_drawn_or_it_is_said_why_not(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as in a notebook
    report = Report(tmp_path)
    add_round(report, 1, member(0))
    report.draw()
    assert (tmp_path / "history.png").exists() and capfd.readouterr().err == ""
    in_the_way(tmp_path / "history.png")
    report.draw()
    assert "cannot draw history.png: " in capfd.readouterr().err
    report.draw(timeout=0.01)
    later = f"to draw it, run python -m federation.results.chart {tmp_path}"
    assert capfd.readouterr().err == f"history.png is not drawn yet: {later}\n"

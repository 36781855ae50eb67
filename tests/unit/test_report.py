"""The report: tables of a new and of a resumed run, a row for each client, the line of a round, the picture."""

from __future__ import annotations

import os
import re
from dataclasses import asdict

from federation.results import chart as history
from federation.results import tables
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


def write_tables(folder, rounds: str, clients: str = "") -> None:
    (folder / "rounds.csv").write_text(HEADERS["rounds.csv"] + rounds, newline="")
    (folder / "clients.csv").write_text(HEADERS["clients.csv"] + clients, newline="")


def add_round(report: Report, server_round: int, *clients: FakeClient) -> None:
    report.start_round(server_round)
    for client in clients:
        report.add_fit(client, fit_result(MODEL, 20, train_loss=0.5, seconds=1.5))
        report.add_evaluation(client, evaluation(0.75, 5, accuracy=0.9, seconds=0.1))
    report.add_central_evaluation(0.5, {"accuracy": 0.8, "examples of label 7": 5, "accuracy of label 7": 0.8})
    report.end_round(len(clients), 0, 0.75, 0.9)


def test_a_new_run_makes_its_tables(tmp_path):
    folder = tmp_path / "results" / "today"
    report = Report(folder)
    assert report.folder == folder
    assert {path.name for path in folder.iterdir()} == {"rounds.csv", "clients.csv"}
    for name in ("rounds.csv", "clients.csv"):
        assert (folder / name).read_bytes() == HEADERS[name].encode()


@pytest.mark.parametrize("name", TABLES)
def test_results_of_another_run_are_not_touched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError):
        Report(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_round_is_told(tmp_path, capsys):
    report = Report(tmp_path)
    report.start_round(4)
    report.add_central_evaluation(0.25, {"accuracy": 0.95})
    power = {"energy_j": 12.5, "power_w": 3.125, "power_source": "PMIC", "throttled": "no"}
    report.add_fit(member(1), fit_result(MODEL, 20, train_loss=0.5, seconds=1.5, temperature_c=61.5, **power))
    report.add_fit(member(0), fit_result(MODEL, 10, secret=1.0, temperature_c="=1+1", peak_memory_mb=200))
    report.add_evaluation(member(1), evaluation(0.75, 5, accuracy=0.9, seconds=0.1, sent_mb=99))
    report.add_traffic([(member(1), 2_000_000, 0), (member(2), 5, 0), (member(1), 0, 1_250_000), (member(1), 1, 0)])
    assert read_table(tmp_path / "rounds.csv") == []  # it is added as a whole
    report.end_round(2, 1, 0.75, None)
    line = capsys.readouterr().out
    losses = "loss 0.7500, central loss 0.2500, central accuracy 0.9500"
    expected = f"round 4: 2 results and 1 failures, {losses}, 3.25 MB, SECONDS s\n"
    assert re.sub(r"\d+\.\d s", "SECONDS s", line) == expected
    (row,) = read_table(tmp_path / "rounds.csv")
    assert 0 <= float(row.pop("seconds")) < 5
    assert row == {
        "round": "4", "clients": "2", "failures": "1", "loss": "0.75", "accuracy": "", "central_loss": "0.25",
        "central_accuracy": "0.95",
    }  # fmt: skip
    assert [tuple(row.values()) for row in read_table(tmp_path / "clients.csv")] == [
        ("4", "0", "pi0", "10", "", "", "", "", "", "200", *[""] * 7),
        (
            "4",
            "1",
            "pi1",
            "20",
            "",
            "0.75",
            "0.9",
            "1.5",
            "0.5",
            "",
            "61.5",  # seconds: of the fit
            "12.5",
            "3.125",
            "PMIC",
            "no",
            "2.000001",
            "1.25",
        ),  # fmt: skip
        ("4", "2", "pi2", *[""] * 12, "5e-06", "0.0"),  # it was asked, and did not answer
    ]


def test_accuracies_by_class_have_a_table_of_their_own(tmp_path):
    report = Report(tmp_path)
    report.start_round(1)
    metrics = {"accuracy": 0.75, "recall": 0.5}
    for label, examples, accuracy in ((0, 10, 1.0), (10, 20, 0.625)):
        metrics.update({f"examples of label {label}": examples, f"accuracy of label {label}": accuracy})
    metrics["class of label 10"] = "cats"
    report.add_central_evaluation(0.25, {**metrics, "recall of label 0": 0.5})
    report.end_round(1, 0, 0.75, None)
    rows = [("1", "0", "", "10", "1.0"), ("1", "10", "cats", "20", "0.625")]
    assert [tuple(row.values()) for row in read_table(tmp_path / "classes.csv")] == rows
    report.start_round(2)  # without an evaluation on the server
    report.end_round(1, 0, 0.75, None)
    report.close()
    assert numbers_in(tmp_path / "classes.csv") == ["1", "1"]


def test_without_accuracies_by_class_there_is_no_table_of_them(tmp_path, capsys):
    for resumed in (None, Checkpoint(MODEL, round=1, results=1)):
        report = Report(tmp_path, resumed)
        report.start_round(1)
        report.add_central_evaluation(0.25, {"accuracy": 0.75})
        report.end_round(1, 0, 0.75, None)
        report.close()
    assert {path.name for path in tmp_path.iterdir()} == {"rounds.csv", "clients.csv"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("last_round", "kept"), [(0, 0), (1, 1)])
def test_a_resumed_run_drops_the_classes_after_its_checkpoint(tmp_path, last_round, kept):
    write_tables(tmp_path, "")
    rows = [f"{number},7,seven,5,0.{number}\r\n" for number in (1, 2)]
    (tmp_path / "classes.csv").write_text(HEADERS["classes.csv"] + "".join(rows), newline="")
    Report(tmp_path, Checkpoint(MODEL, round=last_round, results=1))
    assert (tmp_path / "classes.csv").read_bytes() == (HEADERS["classes.csv"] + "".join(rows[:kept])).encode()


def test_no_figures_that_nobody_reported(tmp_path, capsys):
    report = Report(tmp_path)
    report.start_round(1)
    report.end_round(0, 3, None, None)
    assert re.fullmatch(r"round 1: 0 results and 3 failures, 0\.00 MB, \d\.\d s\n", capsys.readouterr().out)
    assert read_table(tmp_path / "rounds.csv")[0]["loss"] == ""
    assert read_table(tmp_path / "clients.csv") == []


def test_rounds_are_added_to_those_before(tmp_path):
    report = Report(tmp_path)
    for server_round in (1, 2):
        add_round(report, server_round, member(0), member(1))
    assert [row["round"] for row in read_table(tmp_path / "rounds.csv")] == ["1", "2"]
    assert [(row["round"], row["cid"]) for row in read_table(tmp_path / "clients.csv")] == [
        ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"),
    ]  # fmt: skip


def test_a_client_on_a_new_connection_has_one_row(tmp_path):
    report = Report(tmp_path)
    report.start_round(1)
    report.add_fit(member(3, "first"), fit_result(MODEL, 20, seconds=1.5))
    report.add_evaluation(member(3, "second"), evaluation(0.75, 5, seconds=0.1))
    report.end_round(1, 0, 0.75, None)
    (row,) = read_table(tmp_path / "clients.csv")
    assert (row["cid"], row["examples"], row["loss"], row["seconds"]) == ("3", "20", "0.75", "1.5")


def test_a_client_that_only_evaluated_has_no_seconds(tmp_path):
    report = Report(tmp_path)
    report.start_round(1)
    report.add_evaluation(member(3), evaluation(0.75, 5, seconds=0.1))
    report.end_round(0, 0, 0.75, None)
    (row,) = read_table(tmp_path / "clients.csv")
    assert (row["loss"], row["seconds"], row["examples"]) == ("0.75", "", "")


def test_plain_flower_clients_have_a_row_each(tmp_path):
    report = Report(tmp_path)
    add_round(report, 1, FakeClient("one"), FakeClient("another"))
    rows = read_table(tmp_path / "clients.csv")
    assert [(row["cid"], row["device"], row["examples"]) for row in rows] == [("", "", "20")] * 2


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path):
    rounds, clients = "1,2,0,0.5,,,,1.5\r\n", "1,0,pi0,20,,0.75,0.9,1.5,,,,,,,,,\r\n"
    late = "2,2,0,0.5,,,,1.5\r\n", "2,0,pi0,20,,0.75,0.9,1.5,,,,,,,,,\r\n"
    write_tables(tmp_path, rounds + late[0], clients + late[1])
    report = Report(tmp_path, Checkpoint(MODEL, round=1, results=2))
    assert (tmp_path / "rounds.csv").read_bytes() == (HEADERS["rounds.csv"] + rounds).encode()
    assert (tmp_path / "clients.csv").read_bytes() == (HEADERS["clients.csv"] + clients).encode()
    add_round(report, 2, member(0))
    assert [row["round"] for row in read_table(tmp_path / "rounds.csv")] == ["1", "2"]


@pytest.mark.parametrize("half", ["2,2,0", "2", "2,2,0,0.5,,,,1.5,and more\r\n", "x,,,,,,,\r\n", '2,"2,0'])
def test_what_is_not_a_whole_row_goes(tmp_path, half):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n" + half)
    Report(tmp_path, Checkpoint(MODEL, round=2, results=1, failures=1))
    rows = [(row["round"], row["clients"], row["failures"]) for row in read_table(tmp_path / "rounds.csv")]
    assert rows == [("1", "2", "0"), ("2", "1", "1")]  # the latter is made from the checkpoint


@pytest.mark.parametrize(
    ("table", "rows"),
    [("round,cid,unknown\n1,0,x\n", [("1", "0", "")]), ("other,columns\n1,0\n", []), ("\n1,0\n", []), ("", [])],
)
def test_a_table_with_a_damaged_header_gets_a_good_one(tmp_path, table, rows):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n")
    (tmp_path / "clients.csv").write_text(table)
    Report(tmp_path, Checkpoint(MODEL, round=1))
    assert (tmp_path / "clients.csv").read_bytes().startswith(HEADERS["clients.csv"].encode())
    assert [(row["round"], row["cid"], row["loss"]) for row in read_table(tmp_path / "clients.csv")] == rows


def test_a_round_without_its_row_gets_one(tmp_path):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n")
    Report(tmp_path, Checkpoint(MODEL, round=2, results=5, failures=3))
    rows = read_table(tmp_path / "rounds.csv")
    assert [(row["round"], row["clients"], row["failures"], row["seconds"]) for row in rows] == [
        ("1", "2", "0", "1.5"),
        ("2", "5", "3", ""),
    ]


def test_no_row_is_made_up_for_a_run_without_a_checkpoint(tmp_path):
    write_tables(tmp_path, "1,0,2,,,,,1.5\r\n")
    Report(tmp_path, Checkpoint())
    assert read_table(tmp_path / "rounds.csv") == []


@pytest.mark.parametrize("name", ["rounds.csv", "clients.csv"])
def test_a_table_that_is_missing_is_made(tmp_path, name):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n", "1,0,pi0,20,,0.75,0.9,1.5,,,,,\r\n")
    (tmp_path / name).unlink()
    Report(tmp_path, Checkpoint(MODEL, round=1, results=2, failures=0))
    assert (tmp_path / name).read_text().startswith(HEADERS[name].strip())
    assert [row["round"] for row in read_table(tmp_path / "rounds.csv")] == ["1"]


def in_the_way(path) -> None:
    """Put something there that no file can replace, as no file replaces one that is open in Excel."""
    path.unlink()
    path.mkdir()


def numbers_in(path) -> list[str]:
    return [row["round"] for row in read_table(path)]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_written_for_a_while(tmp_path, capsys, name):
    report = Report(tmp_path)
    add_round(report, 1, member(0))
    in_the_way(tmp_path / name)
    capsys.readouterr()
    for server_round in (2, 3):
        add_round(report, server_round, member(0))
    told = capsys.readouterr().out
    assert told.count(f"cannot write {tmp_path / name} (Is a directory): its rows are kept") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name not in TABLES] == []  # nothing half done
    (tmp_path / name).rmdir()
    add_round(report, 4, member(0))
    assert f"{tmp_path / name} is written again, and complete\n" in capsys.readouterr().out
    assert all(numbers_in(tmp_path / table) == ["1", "2", "3", "4"] for table in TABLES)
    report.close()
    assert capsys.readouterr() == ("", "")


def test_a_table_that_can_be_written_in_the_end(tmp_path, capsys):
    report = Report(tmp_path)
    in_the_way(tmp_path / "rounds.csv")
    add_round(report, 1, member(0))
    (tmp_path / "rounds.csv").rmdir()
    report.close()
    assert numbers_in(tmp_path / "rounds.csv") == ["1"] and capsys.readouterr().err == ""


def test_a_table_that_cannot_be_written_to_the_end_is_beside_it(tmp_path, capsys):
    report = Report(tmp_path)
    add_round(report, 1, member(0))
    in_the_way(tmp_path / "rounds.csv")
    (tmp_path / "rounds-2.csv").write_text("somebody's")
    add_round(report, 2, member(0))
    report.close()
    place = f"{tmp_path / 'rounds.csv'} lacks round 2 (Is a directory)"
    assert capsys.readouterr().err == f"server.py: {place}: the whole table is in {tmp_path / 'rounds-3.csv'}\n"
    assert numbers_in(tmp_path / "rounds-3.csv") == ["1", "2"]
    assert (tmp_path / "rounds-2.csv").read_text() == "somebody's"


def test_rows_that_cannot_be_written_anywhere_are_told(tmp_path, capsys, monkeypatch):
    report = Report(tmp_path)
    add_round(report, 1, member(0))

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "replaced", full)
    for server_round in (2, 3):
        add_round(report, server_round, member(0))
    report.close()
    told = capsys.readouterr().err
    assert f"{tmp_path / 'clients.csv'} lacks rounds 2 to 3 (No space left on device):\n2,0,pi0,20," in told
    assert told.count("\n") == 9 and numbers_in(tmp_path / "rounds.csv") == ["1"]


def test_a_disk_that_is_full_in_the_middle_leaves_whole_rows(tmp_path, monkeypatch):
    report = Report(tmp_path)
    add_round(report, 1, member(0))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        add_round(report, 2, member(0))
    assert numbers_in(tmp_path / "rounds.csv") == ["1"]
    add_round(report, 3, member(0))
    assert numbers_in(tmp_path / "rounds.csv") == ["1", "2", "3"]


def test_a_folder_that_is_gone_for_a_while(tmp_path):
    report = Report(tmp_path / "drive")
    add_round(report, 1, member(0))
    (tmp_path / "drive").rename(tmp_path / "elsewhere")
    (tmp_path / "drive").write_text("no folder")
    add_round(report, 2, member(0))
    (tmp_path / "drive").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "drive")
    add_round(report, 3, member(0))
    assert all(numbers_in(tmp_path / "drive" / name) == ["1", "2", "3"] for name in TABLES)


def test_a_resumed_run_whose_tables_cannot_be_written_yet(tmp_path, monkeypatch, capsys):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n2,2,0")
    replaced = tables.replaced

    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tables, "replaced", refused)
    report = Report(tmp_path, Checkpoint(MODEL, round=2, results=1, failures=1))
    assert f"cannot write {tmp_path / 'rounds.csv'} (Permission denied)" in capsys.readouterr().out
    monkeypatch.setattr(tables, "replaced", replaced)
    add_round(report, 3, member(0))
    assert numbers_in(tmp_path / "rounds.csv") == ["1", "2", "3"]


def test_a_table_that_cannot_be_read_is_not_overwritten(tmp_path):
    write_tables(tmp_path, "1,2,0,0.5,,,,1.5\r\n")
    in_the_way(tmp_path / "clients.csv")
    with pytest.raises(OSError):
        Report(tmp_path, Checkpoint(MODEL, round=1))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ImportError("no matplotlib"), ValueError()])
def test_a_picture_that_cannot_be_drawn_is_no_error(tmp_path, monkeypatch, capsys, error):
    report = Report(tmp_path)

    def broken(*_):
        raise error

    monkeypatch.setattr("federation.results.report.draw_history", broken)
    report.draw()
    assert capsys.readouterr().err == f"server.py: cannot draw history.png: {error}\n"


def test_the_picture(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn, legends = [], []
    legend = Axes.legend
    monkeypatch.setattr(Axes, "legend", lambda axis: (legends.append(axis), legend(axis))[1])
    draw_curve = history._draw_curve

    def watched(axis, rows, column, label):
        draw_curve(axis, rows, column, label)
        drawn.append((label, [tuple(line.get_xydata()[-1]) for line in axis.get_lines()][-1:]))

    monkeypatch.setattr(history, "_draw_curve", watched)
    write_tables(tmp_path, "1,0,2,,,,,1.5\r\n")  # neither clients nor figures: every axis is empty
    (tmp_path / "clients.csv").write_text("damaged,header\n1,2\n")
    Report(tmp_path, Checkpoint(round=2)).draw()
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    assert [points for _, points in drawn] == [[]] * 4 and legends == []
    del drawn[:]
    (tmp_path / "history.png").unlink()
    rounds = "1,2,0,,0.5,nan,x,1.5\r\n2,2,0,0.25,0.75,,,1.5\r\n"
    clients = "".join(
        f"{start},{seconds}{',' * 9}\r\n"
        for start, seconds in (("1,,,20,,,", 9), ("1,10,pi,20,,,", 3), ("2,10,pi,20,,,", ""), ("1,9,pi,20,,,", 4))
    )
    write_tables(tmp_path, rounds, f"{clients}2,9")
    Report(tmp_path, Checkpoint(round=2)).draw()
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    assert drawn == [
        ("clients' validation images", [(2, 0.25)]),
        ("test images, on the server", [(2, 0.25)]),  # no curve of its own: NaN
        ("clients' validation images", [(2, 0.75)]),
        ("test images, on the server", [(2, 0.75)]),
        ("client 9", [(1, 4)]),
        ("client 10", [(1, 3)]),
    ]
    assert len(legends) == 3


def test_a_metric_cannot_pose_as_a_figure_of_the_report(tmp_path):
    report = Report(tmp_path)
    report.start_round(3)
    report.add_fit(member(1), fit_result(MODEL, 20, round=7, examples=1000, cid=5, train_loss=True))
    report.add_evaluation(member(1), evaluation(0.75, 5, round=8, examples=2000))
    report.end_round(1, 0, 0.75, None)
    (row,) = read_table(tmp_path / "clients.csv")
    assert (row["round"], row["cid"], row["examples"], row["train_loss"]) == ("3", "1", "20", "")


@pytest.mark.parametrize("name", ["power_source", "throttled"])
def test_texts_of_clients_are_short_and_break_no_table(tmp_path, name):
    report = Report(tmp_path)
    report.start_round(1)
    texts = 'a,"b"\r\n2,0\x1b[2J\u2028c', "x" * 1000, 5, b"x", True
    for cid, text in enumerate(texts):
        report.add_fit(member(cid), fit_result(MODEL, 20, **{name: text, "energy_j": "12", "power_w": b"3"}))
    report.end_round(5, 0, 0.75, None)
    rows = read_table(tmp_path / "clients.csv")
    assert [row[name] for row in rows] == ['a,"b"  2,0 [2J c', "x" * 300, "", "", ""]
    assert {(row["round"], row["energy_j"], row["power_w"]) for row in rows} == {("1", "", "")}


def test_an_older_run_gets_the_columns_of_power(tmp_path):
    new = {"energy_j", "power_w", "power_source", "throttled"}
    write_tables(tmp_path, "1,1,0,0.75,,,,1.5\r\n")
    old = [column for column in TABLES["clients.csv"] if column not in new]
    (tmp_path / "clients.csv").write_text(
        f"{','.join(old)}\r\n1,0,pi0,20,,0.75,0.9,1.5,,200.5,61.5,2,1\r\n", newline=""
    )
    report = Report(tmp_path, Checkpoint(MODEL, round=1, results=1))
    report.start_round(2)
    report.add_fit(member(0), fit_result(MODEL, 20, energy_j=12.5, throttled="no"))
    report.end_round(1, 0, 0.75, None)
    before, after = read_table(tmp_path / "clients.csv")
    assert [*before] == [*TABLES["clients.csv"]] and {before[column] for column in new} == {""}
    assert (before["temperature_c"], before["sent_mb"], before["received_mb"]) == ("61.5", "2", "1")
    assert (after["energy_j"], after["power_source"], after["throttled"]) == ("12.5", "", "no")


@pytest.mark.parametrize("damage", [b"\0" * 100, b"2,\xff\xfe", b"2,1,0\r\n\0\0\0"])
def test_a_table_damaged_by_a_power_cut_is_continued(tmp_path, damage):
    write_tables(tmp_path, "1,2,0,,,,,1.5\r\n")
    with (tmp_path / "rounds.csv").open("ab") as file:
        file.write(damage)
    Report(tmp_path, Checkpoint(MODEL, round=2, results=2))
    assert [row["round"] for row in read_table(tmp_path / "rounds.csv")] == ["1", "2"]

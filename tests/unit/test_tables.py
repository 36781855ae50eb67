"""Tables: what is written is read again; what is no table of ours is moved aside, and nothing of it is lost."""

from __future__ import annotations

from federation.results.report import TABLES
from federation.results.tables import Table, number, read_table

import pytest

COLUMNS = TABLES["rounds.csv"]
HEADER = ",".join(COLUMNS)
ROW = "1,2,0,0.5,,,,1.5"
UNREADABLE = {
    "half a row": f"{HEADER}\r\n{ROW}\r\n2,2,0\r\n".encode(),
    "too long a row": f"{HEADER}\r\n{ROW},and more\r\n".encode(),
    "no round": f"{HEADER}\r\n{ROW}\r\nsum,,,,,,,1.5\r\n".encode(),
    "a quote without end": f'{HEADER}\r\n{ROW}\r\n2,"2,0,0.5,,,,1.5\r\n'.encode(),
    "other columns": b"round,mine\r\n1,2\r\n",
    "European Excel": f"{HEADER}\r\n{ROW}\r\n".replace(",", ";").encode(),
    "another encoding": f"{HEADER}\r\n{ROW}\r\n".encode("utf-16"),
    "garbage": b"\0\xff\xfe\r\n1,\0\r\n",
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_table_that_cannot_be_read_is_moved_aside(tmp_path, capsys, damage):
    path, taken, aside = (tmp_path / f"rounds{end}.csv" for end in ("", "-unreadable-1", "-unreadable-2"))
    path.write_bytes(UNREADABLE[damage])
    taken.write_text("somebody's")
    table = Table(path, COLUMNS)
    assert table.resume(last_round=3) == []
    table.save()
    assert path.read_bytes() == f"{HEADER}\r\n".encode()
    assert aside.read_bytes() == UNREADABLE[damage] and taken.read_text() == "somebody's"
    told = capsys.readouterr().out
    assert told.startswith(f"cannot continue {path}: rounds.csv ") and f"it is now {aside.name}" in told


@pytest.mark.parametrize("content", ["", HEADER, f"\ufeff{HEADER}\n", "\r\n"])
def test_a_table_without_rows_is_begun(tmp_path, content):
    (tmp_path / "rounds.csv").write_text(content)
    table = Table(tmp_path / "rounds.csv", COLUMNS)
    assert table.resume(last_round=3) == []
    table.save()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [f"{HEADER}\r\n".encode()]


@pytest.mark.parametrize("device", ["pi, the first", 'pi "1"', "=1+1", "1,5", "büro", "日本", "\ufeff", "two\r\nlines"])
def test_what_is_written_is_read_again(tmp_path, device):
    table = Table(tmp_path / "clients.csv", TABLES["clients.csv"])
    table.add([{"round": 1, "cid": 0, "device": device, "seconds": 0.25, "unknown": 1}, {"round": 2}])
    table.save()
    row, _ = read_table(tmp_path / "clients.csv")
    assert (row["device"], row["seconds"], row["temperature_c"]) == (device, "0.25", "")
    again = Table(tmp_path / "clients.csv", TABLES["clients.csv"])
    assert again.resume(last_round=1) == [row]
    again.save()
    assert read_table(tmp_path / "clients.csv") == [row]  # round 2 came after the checkpoint


def test_a_file_that_is_missing_and_a_cell_that_is_empty(tmp_path):
    assert read_table(tmp_path / "rounds.csv") == [] and number("1.5") == 1.5 and number("") != number("")

"""Tables: whatever happened to the file, its whole rows are read, and nothing else; it is written as a whole."""

from __future__ import annotations

import random

from federation.results.report import TABLES
from federation.results.tables import Table, read_table, whole_rows

import pytest

COLUMNS = TABLES["rounds.csv"]
HEADER = ",".join(COLUMNS) + "\r\n"
ROWS = [f"{number},2,0,0.5,,,,1.5\r\n" for number in (1, 2, 3)]
WHOLE = (HEADER + "".join(ROWS)).encode()


def between(damage: bytes) -> bytes:
    """The table with something in its second row's place."""
    return (HEADER + ROWS[0]).encode() + damage + ROWS[2].encode()


DAMAGES = {
    "NULs": between(b"\0" * 4096 + b"\r\n"),
    "NULs before a row": between(b"\0" * 4096),
    "NULs in a row": between(b"2,2,0,0.\0\0\0,,,,1.5\r\n"),
    "half a row": between(b"2,2,0\r\n"),
    "a row and a half": between(b"2,2,0,0.5,,,,1.2,2,0,0.5,,,,1.5\r\n"),
    "invalid UTF-8": between(b"2,\xff\xfe\xc3\r\n"),
    "a quote without end": between(b'2,"2,0,0.5,,,,1.5\r\n'),
    "a quote in the last cell": between(b'2,2,0,0.5,,,,"1.5\r\n'),
    "a quote and something": between(b'2,"2"2,0,0.5,,,,1.5\r\n'),
    "a huge cell": between(b"2,2,0," + b"5" * 200_000 + b",,,,1.5\r\n"),
    "a lone carriage return": between(b"2,2,0\r,,,,1.5\r\n"),
    "a huge round": between(b"2" * 5000 + b",2,0,0.5,,,,1.5\r\n"),
    "a negative round": between(b"-2,2,0,0.5,,,,1.5\r\n"),
    "a round in another script": between("٢,2,0,0.5,,,,1.5\r\n".encode()),
    "no round": between(b",2,0,0.5,,,,1.5\r\n"),
    "blank lines": between(b"\r\n\n\n"),
    "garbage": between(random.Random(0).randbytes(5000) + b"\r\n"),
    "no header": "".join([ROWS[0], ROWS[2]]).encode(),
    "half a header": ("round,clie\r\n" + ROWS[0] + ROWS[2]).encode(),
    "a damaged header": (HEADER.replace("clients", "cli\ufffdnts") + ROWS[0] + ROWS[2]).encode(),
    "a damaged name of the round": (HEADER.replace("round", "r") + ROWS[0] + ROWS[2]).encode(),
    "NULs in the header": (HEADER.replace("clients", "cli\0nts") + ROWS[0] + ROWS[2]).encode(),
    "garbage before the header": b"\0\0\0\r\n\xff\r\n" + between(b""),
    "a mark of Excel's": b"\xef\xbb\xbf" + between(b""),
    "line ends of an old Mac": between(b"").replace(b"\r\n", b"\r"),
    "line ends of Unix": between(b"").replace(b"\r\n", b"\n"),
    "no last line end": between(b"")[:-2],
    "European Excel": between(b"").replace(b",", b";").replace(b".", b","),
    "other order": b"clients,round,failures,loss,seconds\n2,1,0,0.5,1.5\n2,3,0,0.5,1.5\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whole_rows_are_kept_and_damaged_ones_dropped(tmp_path, damage):
    path = tmp_path / "rounds.csv"
    path.write_bytes(DAMAGES[damage])
    table = Table(path, COLUMNS)
    table.read(last_round=3)
    expected = [(number, "2", "0", "0.5", "", "", "", "1.5") for number in ("1", "3")]
    assert [tuple(row.values()) for row in table.rows] == expected
    table.save()
    assert table.trouble == ""
    assert path.read_bytes().lstrip(b"\xef\xbb\xbf") == (HEADER + ROWS[0] + ROWS[2]).encode()


def test_every_table_that_a_power_cut_can_leave(tmp_path):
    path = tmp_path / "rounds.csv"
    generator = random.Random(0)
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length] + bytes(generator.choice((0, 0, 512))))
        table = Table(path, COLUMNS)
        table.read(last_round=3)
        assert len(table.rows) >= WHOLE[:length].count(b"\n") - 1


def test_any_bytes(tmp_path):
    path = tmp_path / "rounds.csv"
    generator = random.Random(0)
    for _ in range(300):
        path.write_bytes(bytes(generator.choices(b'0129,;"\r\n\0\xff\xef\xbbround', k=200)))
        table = Table(path, COLUMNS)
        table.read(last_round=3)
        table.save()
        again = Table(path, COLUMNS)
        again.read(last_round=3)
        assert again.rows == table.rows and read_table(path) == table.rows


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xef\xbb\xbf", b"\r\n"])
def test_a_file_of_nothing_has_no_rows(tmp_path, content):
    (tmp_path / "rounds.csv").write_bytes(content)
    table = Table(tmp_path / "rounds.csv", COLUMNS)
    table.read(last_round=3)
    table.save()
    assert table.rows == [] and (tmp_path / "rounds.csv").read_text() == HEADER.replace("\r", "")


@pytest.mark.parametrize(
    "device", ["pi, the first", 'pi "1"', ";;;;;;;;;;;;;;", "round", "=1+1", "1,5", "büro", "日本"]
)
def test_names_of_devices_come_back_as_they_were(tmp_path, device):
    table = Table(tmp_path / "clients.csv", TABLES["clients.csv"])
    table.add([{"round": 1, "cid": 0, "device": device, "seconds": 0.25, "unknown": 1}])
    table.save()
    (row,) = read_table(tmp_path / "clients.csv")
    assert (row["device"], row["seconds"], row["temperature_c"]) == (device, "0.25", "")
    again = Table(tmp_path / "clients.csv", TABLES["clients.csv"])
    again.read(last_round=1)
    assert again.rows == [row]


def test_european_numbers_and_names():
    text = "round;cid;device;loss\n1;0;1,5 GHz, blue;1,5E-05\n2;0;x;-0,25\n"
    assert [(row["device"], row["loss"]) for row in whole_rows(text)] == [("1,5 GHz, blue", "1.5E-05"), ("x", "-0.25")]


def test_a_table_that_has_not_changed_is_not_written_again(tmp_path):
    table = Table(tmp_path / "rounds.csv", COLUMNS)
    table.save()
    before = (tmp_path / "rounds.csv").stat().st_ino
    table.save()
    assert (tmp_path / "rounds.csv").stat().st_ino == before and table.rescue() == ""


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_table(tmp_path / "rounds.csv") == []

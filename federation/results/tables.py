"""Tables in CSV files, with a row or several for each round: read whatever happened to the file, written as a whole."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from federation.files import replaced

Rows = List[Dict[str, str]]  # by column


class Table:
    """A table in memory and, after each `save`, in a CSV file.

    It is written as a whole each time: so no failed write leaves half a row, and what could not be written for a while
    (the file is open in Excel, the disk is full) comes with the next time. `trouble` is why the last `save` failed.
    A table that `is_optional` has no file before it has rows.
    """

    def __init__(self, path: Path, columns: Sequence[str], is_optional: bool = False) -> None:
        self.path = path
        self.columns = columns
        self.is_optional = is_optional
        self.trouble = ""
        self._in_file = ""  # what is known to be there
        self._text = ",".join(columns) + "\r\n"

    @property
    def rows(self) -> Rows:
        """All rows, their cells as text."""
        return whole_rows(self._text, self.columns)

    def create(self) -> None:
        """Make the file, still empty; raises FileExistsError if there is one."""
        self.path.open("x").close()
        if self.is_optional:
            self.path.unlink()

    def read(self, last_round: int) -> None:
        """Take over from the file the whole rows up to that round; raises OSError if it is there but cannot be read."""
        self._in_file = _text_in(self.path)
        self.add(row for row in whole_rows(self._in_file, self.columns) if int(row["round"]) <= last_round)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows by column, what is in no column left out."""
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, extrasaction="ignore").writerows(rows)
        self._text += text.getvalue()

    def save(self) -> None:
        """Write the file, or set `trouble`; tell when that changes."""
        if self._in_file == self._text or (self.is_optional and not self._in_file and not self.rows):
            return
        before = self.trouble
        try:
            self._write(self.path)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            if not before:
                print(f"cannot write {self.path} ({self.trouble}): its rows are kept, and tried again after each round")
        else:
            self._in_file, self.trouble = self._text, ""
            if before:
                print(f"{self.path} is written again, and complete")

    def rescue(self) -> str:
        """Put the whole table into another file if this one lacks rows; return what to tell about that, if anything.

        If that cannot be written either, the missing rows are in what is returned.
        """
        known = set(self._in_file.splitlines())
        missing = [line for line in self._text.splitlines()[1:] if line not in known]
        if not missing:
            return ""
        first, last = (line.partition(",")[0] for line in (missing[0], missing[-1]))
        rounds = f"round {first}" if first == last else f"rounds {first} to {last}"
        lack = f"{self.path} lacks {rounds} ({self.trouble})"
        others = (self.path.with_name(f"{self.path.stem}-{i}{self.path.suffix}") for i in itertools.count(2))
        try:
            other = next(path for path in others if not path.exists())
            self._write(other)
        except OSError:
            return "\n".join([f"{lack}:", *missing])
        return f"{lack}: the whole table is in {other}"

    def _write(self, path: Path) -> None:
        with replaced(path) as file:
            file.write(self._text.encode())


def read_table(path: Path) -> Rows:
    """Return the whole rows in a file, see `whole_rows`; none if there is no such file."""
    return whole_rows(_text_in(path))


def whole_rows(text: str, columns: Sequence[str] = ()) -> Rows:
    """Return the rows that were written to their end, and that no power cut has damaged.

    No cell has a line break, so each line stands for itself. The header names the columns. Where it is damaged or does
    not fit, rows with as many cells as there are `columns` have these.
    """
    lines = [_cells(line) for line in text.splitlines()]
    header = next((cells for cells in lines if "round" in cells), [])
    if len(header) == len(columns):
        header = [name if name in columns else column for name, column in zip(header, columns)]
    rows = []
    for cells in lines:
        names = header if len(cells) == len(header) else columns
        row = dict(zip(names, cells))
        if len(cells) == len(names) and re.fullmatch("[0-9]{1,9}", row.get("round", "")):
            rows.append(row)
    return rows


def number(cell: str) -> float:
    """Return the number in a cell, NaN if there is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _text_in(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")  # -sig: Excel begins a file with a mark
    except FileNotFoundError:
        return ""


def _cells(line: str) -> list[str]:
    """Return the cells of a line, none if it is damaged."""
    line = line.strip("\0")  # a power cut leaves blocks of these
    excel = re.match("[^,]*;", line) is not None  # in Europe, it writes 1;0,5 for 1,0.5
    try:
        cells = next(csv.reader([line], delimiter=";" if excel else ",", strict=True), [])
    except csv.Error:
        return []
    if "\0" in line:  # an error before Python 3.11
        return []
    return [re.sub(r"^(-?\d+),(\d+(E[+-]?\d+)?)$", r"\1.\2", cell) for cell in cells] if excel else cells

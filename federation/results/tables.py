"""Tables in CSV files, with a row or several for each round, written as a whole after each round."""

from __future__ import annotations

import csv
import io
import itertools
import math
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Sequence

from federation.files import replaced

Rows = List[Dict[str, str]]  # by column


class Table:
    """A table in memory and, after each `save`, in a CSV file.

    What could not be written for a while (the file is open in Excel, the disk is full) comes with the next `save`.
    `trouble` is why the last one failed. A table that `is_optional` has no file before it has rows.
    """

    def __init__(self, path: Path, columns: Sequence[str], is_optional: bool = False) -> None:
        self.path = path
        self.columns = columns
        self.trouble = ""
        self._text = io.StringIO(newline="")
        self._writer = csv.DictWriter(self._text, columns, extrasaction="ignore")
        self._writer.writeheader()
        self._in_file = self._text.getvalue() if is_optional else ""

    def create(self) -> None:
        """Check that there is no such file and that one can be made; raises OSError, such as FileExistsError."""
        self.path.open("x").close()
        self.path.unlink()

    def resume(self, last_round: int) -> Rows:
        """Take over the file's rows up to that round, and return them; raises OSError if the file cannot be read.

        A file that is not such a table (any more) is moved aside.
        """
        try:
            rows = read_table(self.path)
            if rows and [*rows[0]] != [*self.columns]:
                raise ValueError(f"{self.path.name} has other columns")
        except ValueError as error:
            names = (self.path.with_name(f"{self.path.stem}-unreadable-{i}.csv") for i in itertools.count(1))
            aside = next(path for path in names if not path.exists())
            self.path.rename(aside)
            print(f"cannot continue {self.path}: {error}; it is now {aside.name}, and a new table begins")
            return []
        if rows:
            self._in_file = ""  # in any case it is written again
        kept = [row for row in rows if int(row["round"]) <= last_round]
        self.add(kept)
        return kept

    def add(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows by column; values of other columns are left out."""
        self._writer.writerows(rows)

    def save(self) -> None:
        """Write the file if it has changed, or set `trouble`; print a line when that changes."""
        text = self._text.getvalue()
        if text == self._in_file:
            return
        before = self.trouble
        try:
            with replaced(self.path) as file:
                file.write(text.encode())
        except OSError as error:
            self.trouble = error.strerror or str(error)
            if not before:
                print(f"cannot write {self.path} ({self.trouble}): its rows are kept, and tried again after each round")
        else:
            self._in_file, self.trouble = text, ""
            if before:
                print(f"{self.path} is written again, and complete")


def read_table(path: Path) -> Rows:
    """Rows of a table by column; none if there is no such file.

    Raises OSError if it cannot be read, ValueError if it is damaged or no table of rounds.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel may begin a file with a mark
            rows = list(csv.DictReader(file, strict=True))
        is_whole = all(int(row["round"]) > 0 and None not in row and None not in row.values() for row in rows)
    except FileNotFoundError:
        return []
    except (csv.Error, KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path.name} is damaged, or no table of a run")
    return rows


def number(cell: str) -> float:
    """Number in a cell; NaN if there is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan

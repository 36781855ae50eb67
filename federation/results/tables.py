"""Tables in CSV files, with one or more rows for each round, written as a whole after each round."""

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

    If the file cannot be written (it is open in Excel, the disk is full), the next `save` writes all of it.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = columns
        self._text = io.StringIO(newline="")
        self._writer = csv.DictWriter(self._text, columns, extrasaction="ignore")
        self._writer.writeheader()

    def resume(self, last_round: int) -> Rows:
        """Take over and return the file's rows up to that round; raises OSError if the file cannot be read.

        A file that is damaged, or not such a table, is moved aside.
        """
        try:
            rows = read_table(self.path)
            if rows and [*rows[0]] != [*self.columns]:
                raise ValueError(f"{self.path.name} has other columns")
        except ValueError as error:
            names = (self.path.with_name(f"{self.path.stem}-unreadable-{i}.csv") for i in itertools.count(1))
            aside = next(path for path in names if not path.exists())
            self.path.rename(aside)
            print(f"cannot continue {self.path}: {error}; it is now {aside.name}, and a new table was started")
            return []
        kept = [row for row in rows if int(row["round"]) <= last_round]
        self.add(kept)
        return kept

    def add(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows by column; values of other columns are left out."""
        self._writer.writerows(rows)

    def save(self) -> None:
        """Write the file, or print why not."""
        try:
            with replaced(self.path) as file:
                file.write(self._text.getvalue().encode())
        except OSError as error:
            reason = error.strerror or error
            print(f"cannot write {self.path} ({reason}): its last rounds are missing until a later write succeeds")


def read_table(path: Path) -> Rows:
    """Rows of a table by column; none if there is no such file.

    Raises OSError if it cannot be read, ValueError if it is damaged or not a table of rounds.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel may begin a file with a mark
            rows = list(csv.DictReader(file, strict=True))
        if any(int(row["round"]) < 1 or None in row or None in row.values() for row in rows):
            raise ValueError("a row is too short or too long")
    except FileNotFoundError:
        return []
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged, or not a table of a run") from error
    return rows


def number(cell: str) -> float:
    """Number in a cell; NaN if there is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan

"""The table of a server on a terminal: the round, what each client does just now, how it did in its last round."""

from __future__ import annotations

import collections
import math
import time
from typing import Any, Callable, Mapping, NamedTuple

from federation.live_lines import bar
from federation.results.report import TRAFFIC, Report
from federation.wire.handshake import Identity, Key, as_number

Figures = Mapping[str, Any]  # a client's row of clients.csv

TASKS = {"fit": "training", "evaluate": "evaluating", "get_parameters": "making a model", "lost": "lost", "": "idle"}
COLOURS = {"fit": "green", "evaluate": "cyan", "lost": "red", "": "dim"}
COLUMNS = {  # title: columns of clients.csv, format; where there is too little room, the last ones go first
    "accuracy": (["accuracy"], "{:.4f}"),
    "last fit": (["seconds"], "{:.1f} s"),
    "loss": (["loss"], "{:.4f}"),
    "power": (["power_w"], "{:.1f} W"),
    "traffic": (TRAFFIC, "{:.2f} MB"),
    "heat": (["temperature_c"], "{:.0f} °C"),
    "memory": (["peak_memory_mb"], "{:.0f} MB"),
}
LEAST_DEVICE = 16  # columns for the name of a device, before it is cut
BAR_WIDTH = 30  # columns
REFUSED_FOR = 60  # seconds in which a refusal is shown
RECENT = 5  # rounds by which the next ones are estimated


class Activity(NamedTuple):
    """What a client does, and since when by `time.monotonic()`."""

    key: Key  # what tells clients apart
    identity: Identity | None  # None: a plain Flower client
    task: str  # Flower's, such as "fit"; "": it waits to be asked; "lost": its connection has ended
    since: float

    @property
    def name(self) -> str:
        """How to call the client in messages."""
        return str(self.identity or "a plain Flower client")

    @property
    def seconds(self) -> float:
        """How long it has been at it."""
        return time.monotonic() - self.since


class LiveTable:
    """Draws the table from what `activities` and `refusals`, with the time of each, return at the moment."""

    def __init__(
        self,
        report: Report,
        num_rounds: int,
        min_num_clients: int,
        activities: Callable[[], list[Activity]],
        refusals: Callable[[], dict[str, float]],
    ) -> None:
        self.report = report
        self.num_rounds = num_rounds
        self.min_num_clients = min_num_clients
        self.activities = activities
        self.refusals = refusals

    def render(self, width: int, height: int) -> list[str]:
        """Return the lines of the table, at most half of the terminal's."""
        from rich.console import Console  # here, because only a terminal pays for this import
        from rich.text import Text

        console = Console(width=width, height=height, force_terminal=True, legacy_windows=False, highlight=False)
        activities = self.activities()
        rows = max(1, height // 2 - 5)  # beside headline, titles, the line about the others, an empty one
        shown = activities
        if len(activities) > rows:
            shown = sorted(activities, key=lambda activity: (not activity.task, activity.key))[:rows]
        with console.capture() as capture:
            console.print()
            console.print(Text(self._headline(activities), "bold"), overflow="ellipsis", no_wrap=True)
            if shown:
                console.print(self._table(shown, width))
            others = collections.Counter(TASKS[activity.task] for activity in activities if activity not in shown)
            if others:
                counted = ", ".join(f"{count} {what}" for what, count in others.items())
                console.print(Text(f"and {len(activities) - len(shown)} more: {counted}", "dim"))
            for line, when in self.refusals().items():
                if time.monotonic() - when < REFUSED_FOR:
                    console.print(Text(line, "red"), overflow="ellipsis", no_wrap=True)
        return capture.get().rstrip("\n").split("\n")

    def _headline(self, activities: list[Activity]) -> str:
        """Return the round, how far it is, and when the run will be over, by the rounds before."""
        started = self.report.round_started
        current = self.report.round + (started is None)
        if current > self.num_rounds:
            return f"{self.num_rounds} rounds are over"
        title = f"round {current} of {self.num_rounds}"
        if started is None:
            here = sum(activity.task != "lost" for activity in activities)
            return f"{title}: {here} of {self.min_num_clients} clients are here"
        elapsed = time.monotonic() - started
        earlier = [seconds for seconds in self.report.durations[-RECENT:] if math.isfinite(seconds)]
        if not earlier:
            return f"{title}: {duration(elapsed)}"
        usual = max(0.1, sum(earlier) / len(earlier))
        left = max(0.0, usual - elapsed) + usual * (self.num_rounds - current)
        drawn = bar(min(1.0, elapsed / usual), BAR_WIDTH)
        return f"{title} {drawn} {duration(elapsed)} of about {duration(usual)}; about {duration(left)} to the end"

    def _table(self, activities: list[Activity], width: int) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        figures = [self.report.latest.get(activity.key, {}) for activity in activities]
        columns = {"cid": [str(activity.identity.cid) if activity.identity else "" for activity in activities]}
        columns["now"] = [_now(activity, row) for activity, row in zip(activities, figures)]
        room = width - sum(_width(title, cells) for title, cells in columns.items())
        for title, (names, form) in COLUMNS.items():
            cells = [_cell(row, names, form) for row in figures]
            if any(cells):
                if room - _width(title, cells) < LEAST_DEVICE:
                    break
                columns[title] = cells
                room -= _width(title, cells)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
        table.add_column("cid", justify="right", no_wrap=True)
        table.add_column("device", max_width=max(1, room - 3), no_wrap=True, overflow="ellipsis")
        for title in [*columns][1:]:
            table.add_column(title, justify="left" if title == "now" else "right", no_wrap=True)
        for activity, cid, *cells in zip(activities, *columns.values()):
            device = activity.identity.device if activity.identity else "plain Flower client"
            texts = [Text(cell) for cell in (cid, device, *cells)]
            texts[2].style = COLOURS.get(activity.task, "")
            table.add_row(*texts)
        return table


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: 34 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _now(activity: Activity, figures: Figures) -> str:
    what = TASKS[activity.task]
    if not activity.task:
        return what
    text = f"{what} {duration(activity.seconds)}"
    usual = as_number(figures.get("seconds")) if activity.task == "fit" else None
    return text + (" ago" if activity.task == "lost" else f" of about {duration(usual)}" if usual else "")


def _cell(row: Figures, names: Any, form: str) -> str:
    known = [value for value in (as_number(row.get(name)) for name in names) if value is not None]
    return form.format(sum(known)) if known else ""


def _width(title: str, cells: list[str]) -> int:
    return max(map(len, [title, *cells])) + 3  # between two columns

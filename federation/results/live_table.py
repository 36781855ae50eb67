"""What the clients do while the server runs: a table on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import threading
import time
from typing import Iterator

from federation.results.activities import Activities, Activity
from federation.results.report import Report
from federation.wire.handshake import as_number

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

INTERVAL = 60  # seconds between two lines about who is still at work
MOST_NAMES = 5  # in such a line
RECENT = 5  # rounds by which the next ones are estimated
TASKS = {"fit": "training", "evaluate": "evaluating", "get_parameters": "making a model", "": "idle"}
COLOURS = {"fit": "green", "evaluate": "cyan", "lost": "red", "": "dim"}


@contextlib.contextmanager
def watched(
    report: Report, activities: Activities, num_rounds: int, min_num_clients: int, plain: bool
) -> Iterator[None]:
    """Show what the clients do for as long as the block lasts; `plain`: without the table."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    is_over = threading.Event()
    try:
        if is_terminal and not plain:
            draw = LiveTable(report, activities, num_rounds, min_num_clients).draw
            # What is printed goes above it, except to a file: `server.py 2> errors`.
            with Live(get_renderable=draw, transient=True, refresh_per_second=2, redirect_stderr=os.isatty(2)):
                yield
        else:
            threading.Thread(target=_tell, args=(report, activities, is_over), daemon=True).start()
            yield
    finally:
        is_over.set()


def _tell(report: Report, activities: Activities, is_over: threading.Event) -> None:
    """Print once a minute who has been at work for longer than that."""
    while not is_over.wait(INTERVAL):
        busy = [activity for activity in activities.all() if activity.seconds >= INTERVAL]
        names = [f"{activity.name} ({now(activity)})" for activity in busy if activity.task not in ("", "lost")]
        if len(names) > MOST_NAMES:
            names[MOST_NAMES:] = [f"{len(names) - MOST_NAMES} more"]
        if names:
            print(f"round {report.round} still waits for {', '.join(names)}")


class LiveTable:
    """The round, and a row for each client: what it does now, and how it did in its last round."""

    def __init__(self, report: Report, activities: Activities, num_rounds: int, min_num_clients: int) -> None:
        self.report, self.activities = report, activities
        self.num_rounds, self.min_num_clients = num_rounds, min_num_clients

    def draw(self) -> Group:
        """Draw the table, in at most half of the terminal's height: those who are at work come first."""
        activities = self.activities.all()
        rows = max(1, shutil.get_terminal_size().lines // 2 - 5)  # beside headline, titles, the line below
        shown = activities
        if len(activities) > rows:
            shown = sorted(activities, key=lambda activity: activity.task == "")[:rows]
        parts: list[RenderableType] = [Text(f"\n{self._headline(activities)}", "bold")]
        if shown:
            parts.append(self._table(shown))
        if len(shown) < len(activities):
            parts.append(Text(f"and {len(activities) - len(shown)} more", "dim"))
        return Group(*parts)

    def _headline(self, activities: list[Activity]) -> str:
        """Describe the round: how long it takes, and when the run will be over, by the rounds before."""
        num_rounds, started = self.num_rounds, self.report.round_started
        current = self.report.round + (started is None)
        if current > num_rounds:
            return f"{num_rounds} of {num_rounds} rounds are over"
        title = f"round {current} of {num_rounds}"
        if started is None:
            here = sum(activity.task != "lost" for activity in activities)
            return f"{title}: {here} of {self.min_num_clients} clients are here"
        elapsed = time.monotonic() - started
        earlier = [seconds for seconds in self.report.durations[-RECENT:] if math.isfinite(seconds)]
        if not earlier:
            return f"{title}: {duration(elapsed)}"
        usual = sum(earlier) / len(earlier)
        left = max(0.0, usual - elapsed) + usual * (num_rounds - current)
        return f"{title}: {duration(elapsed)} of about {duration(usual)}, about {duration(left)} to the end"

    def _table(self, activities: list[Activity]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
        table.add_column("cid", justify="right", no_wrap=True)
        table.add_column("device")
        for title in ("now", "accuracy", "last fit"):
            table.add_column(title, justify="left" if title == "now" else "right", no_wrap=True)
        for activity in activities:
            identity, figures = activity.identity, self.report.latest.get(activity.key, {})
            accuracy, seconds = as_number(figures.get("accuracy")), as_number(figures.get("seconds"))
            table.add_row(
                str(identity.cid) if identity else "",
                Text(identity.device if identity else "plain Flower client", no_wrap=True, overflow="ellipsis"),
                Text(now(activity), COLOURS.get(activity.task, "")),
                "" if accuracy is None else f"{accuracy:.4f}",
                "" if seconds is None else f"{seconds:.1f} s",
            )
        return table


def now(activity: Activity) -> str:
    """Tell what a client does, and how long it has done that."""
    doing = TASKS.get(activity.task, activity.task)
    since = f" {duration(activity.seconds)}" if activity.task else ""
    return f"{doing}{since} ago" if activity.task == "lost" else f"{doing}{since}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: 34 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"

"""What the clients are doing: a table on a terminal, otherwise a line per minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from typing import Iterator

from federation.results.activities import Activities, Activity
from federation.results.report import Report
from federation.wire.handshake import as_number

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

INTERVAL = 60  # seconds between two lines about who is still at work
MOST_NAMES = 5  # in such a line
TASKS = {"fit": "training", "evaluate": "evaluating", "get_parameters": "making a model"}
COLOURS = {"fit": "green", "evaluate": "cyan", "lost": "red", "": "dim"}


@contextlib.contextmanager
def watched(
    report: Report, activities: Activities, num_rounds: int, min_num_clients: int, plain: bool
) -> Iterator[None]:
    """Show what the clients are doing during the block; `plain`: without the table."""
    if os.isatty(1) and Console().is_interactive and not plain:
        with Live(
            get_renderable=lambda: draw(report, activities.all(), num_rounds, min_num_clients),
            transient=True,
            refresh_per_second=2,
            redirect_stderr=os.isatty(2),  # what is printed goes above it, except to a file: `server.py 2> errors`
        ):
            yield
        return
    is_over = threading.Event()
    threading.Thread(target=_tell, args=(report, activities, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _tell(report: Report, activities: Activities, is_over: threading.Event) -> None:
    """Print once a minute who has been at work for longer than that."""
    while not is_over.wait(INTERVAL):
        since = time.monotonic() - INTERVAL
        busy = [each for each in activities.all() if each.task not in ("", "lost") and each.since <= since]
        names = [f"{each.identity or 'a plain Flower client'} ({_now(each)})" for each in busy]
        if len(names) > MOST_NAMES:
            names[MOST_NAMES:] = [f"and {len(names) - MOST_NAMES} more"]
        if names:
            print(f"round {report.round.number} still waits for {', '.join(names)}")


def draw(report: Report, activities: list[Activity], num_rounds: int, min_num_clients: int) -> Group:
    """Draw a headline, and a row for each client: what it is doing, and the figures of its last round.

    The table takes at most half of the terminal's height: clients at work come first.
    """
    here = sum(activity.task != "lost" for activity in activities)
    headline = _headline(report, num_rounds, f"{here} of {min_num_clients} clients are connected")
    most = max(1, shutil.get_terminal_size().lines // 2 - 5)  # beside headline, titles, the line below
    left_out = len(activities) - most
    if left_out > 0:
        activities = sorted(activities, key=lambda activity: activity.task == "")[:most]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="", caption_justify="left")
    table.caption = f"and {left_out} more" if left_out > 0 else None
    table.add_column("cid", justify="right", no_wrap=True)
    table.add_column("device")
    table.add_column("now", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("last fit", justify="right", no_wrap=True)
    for activity in activities:
        identity, figures = activity.identity, report.latest.get(activity.key, {})
        accuracy, seconds = as_number(figures.get("accuracy")), as_number(figures.get("seconds"))
        table.add_row(
            str(identity.cid) if identity else "",
            Text(identity.device if identity else "plain Flower client", no_wrap=True, overflow="ellipsis"),
            Text(_now(activity), COLOURS.get(activity.task, "")),
            "" if accuracy is None else f"{accuracy:.4f}",
            "" if seconds is None else f"{seconds:.1f} s",
        )
    return Group(Text(f"\n{headline}", "bold"), table)


def _headline(report: Report, num_rounds: int, presence: str) -> str:
    """Progress of the round and, estimated from the last round, of the run; before a round, how many clients wait."""
    number, started = report.round.number, report.round.started
    if started is None and number < num_rounds:
        return f"round {number + 1} of {num_rounds}: {presence}"
    if started is None:
        return f"{num_rounds} of {num_rounds} rounds are done"
    elapsed = time.monotonic() - started
    headline = f"round {number} of {num_rounds}: {_duration(elapsed)}"
    if not report.durations:
        return headline
    last = report.durations[-1]
    left = max(0.0, last - elapsed) + last * (num_rounds - number)
    return f"{headline} of about {_duration(last)}, about {_duration(left)} to the end"


def _now(activity: Activity) -> str:
    """What a client is doing, and for how long."""
    if activity.task == "":
        return "idle"
    doing = f"{TASKS.get(activity.task, activity.task)} {_duration(time.monotonic() - activity.since)}"
    return f"{doing} ago" if activity.task == "lost" else doing


def _duration(seconds: float) -> str:
    """A time in the unit that suits it: 34 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"

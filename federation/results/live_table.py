"""What the clients do while the server runs: a table, on a terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import ContextManager

from federation.results.activities import Activities, Activity
from federation.results.report import Report
from federation.wire.handshake import as_number

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

TASKS = {"fit": "training", "evaluate": "evaluating", "get_parameters": "making a model"}
COLOURS = {"fit": "green", "evaluate": "cyan", "lost": "red", "": "dim"}


def watched(
    report: Report, activities: Activities, num_rounds: int, min_num_clients: int, plain: bool
) -> ContextManager[object]:
    """A context in which the table is shown, if there is a terminal for it; `plain`: without."""
    if plain or not Console().is_interactive:
        return contextlib.nullcontext()
    return Live(
        get_renderable=lambda: draw(report, activities.all(), num_rounds, min_num_clients),
        transient=True,
        refresh_per_second=2,
        redirect_stderr=os.isatty(2),  # what is printed goes above it, except to a file: `server.py 2> errors`
    )


def draw(report: Report, activities: list[Activity], num_rounds: int, min_num_clients: int) -> Group:
    """Draw a headline, and a row for each client: what it does now, and how it did in its last round.

    That takes at most half of the terminal's height: clients at work come first.
    """
    here = sum(activity.task != "lost" for activity in activities)
    headline = _headline(report, num_rounds, f"{here} of {min_num_clients} clients are here")
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
    """How far the round is, and, if it takes as long as the last one, the run; before a round, who is here."""
    number, started = report.round.number, report.round.started
    if started is None and number < num_rounds:
        return f"round {number + 1} of {num_rounds}: {presence}"
    if started is None:
        return f"{num_rounds} of {num_rounds} rounds are over"
    elapsed = time.monotonic() - started
    headline = f"round {number} of {num_rounds}: {_duration(elapsed)}"
    if not report.durations:
        return headline
    last = report.durations[-1]
    left = max(0.0, last - elapsed) + last * (num_rounds - number)
    return f"{headline} of about {_duration(last)}, about {_duration(left)} to the end"


def _now(activity: Activity) -> str:
    """What a client does, and for how long it has done that."""
    if activity.task == "":
        return "idle"
    doing = f"{TASKS.get(activity.task, activity.task)} {_duration(time.monotonic() - activity.since)}"
    return f"{doing} ago" if activity.task == "lost" else doing


def _duration(seconds: float) -> str:
    """A time in the unit that suits it: 34 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"

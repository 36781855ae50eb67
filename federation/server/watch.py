"""What the server shows while clients are at work: a table on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import contextlib
import threading
from typing import Iterator

from federation.live_lines import LiveLines
from federation.results.report import Report
from federation.server.client_manager import DeviceClientManager
from federation.server.flags import ServerSettings
from federation.server.live_table import TASKS, LiveTable, duration

INTERVAL = 60  # seconds between two lines about who is still at work
MOST_NAMES = 5  # in such a line


@contextlib.contextmanager
def watched(report: Report, clients: DeviceClientManager, settings: ServerSettings) -> Iterator[None]:
    """Show what the clients do for as long as the block lasts."""
    run = settings.run
    table = LiveTable(report, run.num_rounds, run.min_num_clients, clients.activities, clients.refusals)
    lines = LiveLines(table.render)
    is_over = threading.Event()
    if not settings.plain:
        lines.start()
    if not lines.is_shown:
        threading.Thread(target=_tell, args=(report, clients, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
        lines.stop()


def _tell(report: Report, clients: DeviceClientManager, is_over: threading.Event) -> None:
    """Print once a minute who has been at work for longer than that."""
    while not is_over.wait(INTERVAL):
        busy = [activity for activity in clients.activities() if activity.seconds >= INTERVAL]
        busy = [activity for activity in busy if activity.task not in ("", "lost")]
        names = [f"{activity.name} ({TASKS[activity.task]}, {duration(activity.seconds)})" for activity in busy]
        if len(names) > MOST_NAMES:
            names[MOST_NAMES:] = [f"{len(names) - MOST_NAMES} more"]
        if names:
            print(f"round {report.round} still waits for {', '.join(names)}")

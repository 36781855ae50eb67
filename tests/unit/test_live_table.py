"""The server's table: what it says of each client, and that it fits into any terminal."""

from __future__ import annotations

import re
import time

from federation.results.checkpoint import Checkpoint
from federation.results.report import Report
from federation.server import live_table
from federation.server.live_table import Activity, LiveTable

import pytest
from fakes import MODEL, evaluation, fit_result, identity
from rich.cells import cell_len
from test_report import member

METRICS = {"seconds": 50.0, "peak_memory_mb": 573.2, "temperature_c": 61.5, "power_w": 3.25}


def activity(cid: int, task: str = "", seconds: float = 0, **changes) -> Activity:
    return Activity((False, cid, ""), identity(cid, **changes), task, time.monotonic() - seconds)


def lines(
    report: Report, *activities: Activity, width: int = 150, height: int = 40, refusals=None, num_rounds: int = 3
) -> list[str]:
    """The lines of the table, without colours."""
    table = LiveTable(report, num_rounds, 2, lambda: list(activities), lambda: refusals or {})
    drawn = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in table.render(width, height)]
    assert all(cell_len(line) <= width for line in drawn)
    return drawn


@pytest.fixture
def report(tmp_path) -> Report:
    """A report in the second round; client 0 has trained in the first one, in 50 s."""
    report = Report(tmp_path)
    report.start_round(1)
    report.add_fit(member(0), fit_result(MODEL, 20, **METRICS))
    report.add_evaluation(member(0), evaluation(0.75, 5, accuracy=0.9))
    report.add_traffic([(member(0), 1_000_000, 500_000)])
    report.round_started -= 60
    report.end_round(1, 0, 0.75, 0.9)
    report.start_round(2)
    report.round_started -= 20
    return report


def test_before_the_first_round(tmp_path):
    report = Report(tmp_path)
    assert lines(report) == ["", "round 1 of 3: 0 of 2 clients are here"]
    drawn = lines(report, activity(3), activity(4, "lost", 12.2))
    assert drawn[1] == "round 1 of 3: 1 of 2 clients are here"
    assert drawn[2].split() == ["cid", "device", "now"]
    assert drawn[4].split() == ["3", "pi3", "idle"]
    assert drawn[5].split() == ["4", "pi4", "lost", "12", "s", "ago"]


def test_a_round(report):
    headline, titles, _, *rows = lines(report, activity(0, "fit", 34), activity(1, "evaluate", 3), activity(2))[1:]
    assert re.fullmatch("round 2 of 3 ━{10}─{20} 20 s of about 60 s; about 100 s to the end", headline)
    assert re.split(" {2,}", titles) == [
        "cid", "device", "now", "accuracy", "last fit", "loss", "power", "traffic", "heat", "memory",
    ]  # fmt: skip
    assert re.split(" {2,}", rows[0].strip()) == [
        "0", "pi0", "training 34 s of about 50 s", "0.9000", "50.0 s", "0.7500", "3.2 W", "1.50 MB", "62 °C", "573 MB",
    ]  # fmt: skip
    others = [re.split(" {2,}", row.strip()) for row in rows[1:]]
    assert others == [["1", "pi1", "evaluating 3 s"], ["2", "pi2", "idle"]]


def test_a_round_that_takes_longer_than_the_others(report):
    report.round_started -= 7300
    assert lines(report)[1].endswith("━━ 2.0 h of about 60 s; about 60 s to the end")


def test_a_first_round_and_the_end(tmp_path):
    report = Report(tmp_path)
    report.start_round(1)
    report.round_started -= 130
    assert lines(report)[1] == "round 1 of 3: 2 min"
    report.end_round(0, 1, None, None)
    assert lines(report)[1] == "round 2 of 3: 0 of 2 clients are here"
    assert lines(report, num_rounds=1)[1] == "1 rounds are over"


def test_a_resumed_run_goes_on_counting(tmp_path):
    Report(tmp_path)
    assert lines(Report(tmp_path, Checkpoint(MODEL, round=7)), num_rounds=9)[1].startswith("round 8 of 9: ")


@pytest.mark.parametrize("width", [10, 20, 39, 60, 79, 80, 100, 119, 200])
def test_any_width(report, width):
    """The less there is room for, the fewer columns, the last ones first; numbers are never cut."""
    other = activity(12, "lost", 3, device="a board with a long name " * 9)
    drawn = lines(report, activity(0, "fit", 34), other, width=width)
    titles = drawn[2].split()
    if width >= 79:
        assert titles[:4] == ["cid", "device", "now", "accuracy"]
        assert "…" not in drawn[4].replace("pi0", "")
    assert ("memory" in titles) == (width >= 119)


def test_many_clients(report):
    """Those with news come first, and half of the terminal is for the lines of events."""
    activities = [activity(cid) for cid in range(50)]
    activities[40], activities[30] = activity(40, "fit"), activity(30, "lost")
    drawn = lines(report, *activities, height=24)
    assert len(drawn) <= 12
    assert [row.split()[0] for row in drawn[4:-1]] == ["30", "40", "0", "1", "2", "3", "4"]
    assert drawn[-1] == "and 43 more: 43 idle"
    assert len(lines(report, *activities, height=1)) == 6


def test_names_from_the_network_are_no_markup(report):
    drawn = lines(report, activity(0, device="[red]pi[/red] :smile: [/]"), activity(1, device="ラズパイ" * 20))
    assert "[red]pi[/red] :smile: [/]" in drawn[4] and "ラズパイ" in drawn[5]


def test_plain_flower_clients(report):
    drawn = lines(report, Activity((True, 0, "ipv4:x"), None, "fit", time.monotonic()))
    assert drawn[4].split() == ["plain", "Flower", "client", "training", "0", "s"]


def test_refusals_are_shown_for_a_minute(report):
    now = time.monotonic()
    refusals = {"client 1 on [b] is refused: why": now - 3, "client 2 is refused": now - live_table.REFUSED_FOR - 1}
    assert lines(report, activity(0), refusals=refusals)[-1] == "client 1 on [b] is refused: why"


def test_no_colour_if_the_user_wants_none(report, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    drawn = LiveTable(report, 3, 2, lambda: [activity(0, "fit")], dict).render(100, 40)
    assert not any(re.search(r"\x1b\[[\d;]*3\dm", line) for line in drawn)

"""What a server shows of its clients on a terminal."""

from __future__ import annotations

import re
import time

from federation.results import live_table
from federation.results.activities import Activities, Activity
from federation.results.checkpoint import Checkpoint
from federation.results.live_table import draw, watched
from federation.results.report import Report

import pytest
from fakes import MODEL, evaluation, fit_result, identity
from rich.console import Console
from test_report import member


def activity(cid: int, task: str = "", seconds: float = 0, **changes) -> Activity:
    return Activity((False, cid, ""), identity(cid, **changes), task, time.monotonic() - seconds)


@pytest.fixture
def report(tmp_path) -> Report:
    """A report in the second round; client 0 has trained in the first one, in 50 s."""
    report = Report(tmp_path)
    report.start_round(1)
    report.add_fit(member(0), fit_result(MODEL, 20, seconds=50.0))
    report.add_evaluation(member(0), evaluation(0.75, 5, accuracy=0.9))
    report.round.started -= 60
    report.end_round(1, 0, 0.75, 0.9)
    report.start_round(2)
    report.round.started -= 20
    return report


@pytest.fixture
def lines(monkeypatch):
    """Return a function that draws the lines of the table, without colours."""

    def lines(report: Report, *activities: Activity, width: int = 80, height: int = 40) -> list[str]:
        monkeypatch.setenv("LINES", str(height))
        console = Console(width=width)
        with console.capture() as capture:
            console.print(draw(report, list(activities), num_rounds=3, min_num_clients=2))
        drawn = capture.get().splitlines()
        assert max(map(len, drawn)) <= width
        return [line.rstrip() for line in drawn]

    return lines


def test_before_the_first_round(tmp_path, lines):
    report = Report(tmp_path)
    assert lines(report)[1] == "round 1 of 3: 0 of 2 clients are connected"
    drawn = lines(report, activity(3), activity(4, "lost", 12.2))
    assert drawn[1] == "round 1 of 3: 1 of 2 clients are connected"
    assert re.split(" {2,}", drawn[2].strip()) == ["cid", "device", "now", "accuracy", "last fit"]
    assert [row.split() for row in drawn[4:]] == [["3", "pi3", "idle"], ["4", "pi4", "lost", "12", "s", "ago"]]


def test_a_round(report, lines):
    plain = Activity((True, 0, "ipv4:x"), None, "fit", time.monotonic())
    strange = activity(2, device="[red]ラズパイ[/red] :smile:")  # no markup
    headline, _, _, *rows = lines(report, activity(0, "fit", 34), activity(1, "evaluate", 130), strange, plain)[1:]
    assert headline == "round 2 of 3: 20 s of about 60 s, about 100 s to the end"
    assert [re.split(" {2,}", row.strip()) for row in rows] == [
        ["0", "pi0", "training 34 s", "0.9000", "50.0 s"],
        ["1", "pi1", "evaluating 2 min"],
        ["2", "[red]ラズパイ[/red] :smile:", "idle"],
        ["plain Flower client", "training 0 s"],
    ]


def test_the_end_and_a_resumed_run(report, lines, tmp_path):
    report.end_round(1, 0, 0.75, 0.9)
    resumed = Report(tmp_path, Checkpoint(MODEL, round=2))
    assert lines(resumed)[1] == "round 3 of 3: 0 of 2 clients are connected"
    resumed.start_round(3)
    resumed.end_round(1, 0, None, None)
    drawn = lines(resumed, activity(0, "reconnect"))
    assert drawn[1] == "3 of 3 rounds are done" and drawn[4].endswith("reconnect 0 s")  # whatever clients are asked


def test_a_narrow_terminal_cuts_the_names(report, lines):
    row = lines(report, activity(0, "fit", 34, device="a board with a long name"), width=50)[-1]
    assert re.fullmatch(r" +0 +a .*… +training 34 s +0\.9000 +50\.0 s", row)


def test_many_clients(report, lines):
    """Those at work come first, and half of the terminal is for the lines of events."""
    activities = [activity(cid) for cid in range(50)]
    activities[40], activities[30] = activity(40, "fit"), activity(30, "lost")
    drawn = lines(report, *activities, height=24)
    assert len(drawn) <= 12
    assert [row.split()[0] for row in drawn[4:-1]] == ["30", "40", "0", "1", "2", "3", "4"]
    assert drawn[-1] == "and 43 more"


def test_who_is_still_at_work_is_told_once_a_minute(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(live_table, "INTERVAL", 0.3)
    activities, report = Activities(), Report(tmp_path)
    members = [member(cid) for cid in range(9)]
    report.start_round(4)
    with watched(report, activities, 5, 2, plain=True):
        activities.note(members[0], "evaluate")
        time.sleep(0.75)
        for client in members[1:]:
            activities.note(client, "fit")
        activities.note(members[2], "")
        time.sleep(0.75)
    told = capsys.readouterr().out.splitlines()
    alone, *_, last = [re.sub(r" \d s\)", ")", line) for line in told]
    assert alone == "round 4 still waits for client 0 on pi0 (evaluating)"
    assert last == f"{alone}, {', '.join(f'client {cid} on pi{cid} (training)' for cid in (1, 3, 4, 5))}, and 3 more"
    time.sleep(0.4)
    assert capsys.readouterr().out == ""

"""How far a fit is: its steps, its end, and the line that a terminal shows."""

from __future__ import annotations

import math
import sys

from federation.client import progress
from federation.client.progress import FitProgress

import pytest


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_all_epochs():
    fit = FitProgress(epochs=2, num_batches=2, seconds=math.inf)
    fractions = []
    while not fit.is_over:
        fractions.append([fit.fraction for _ in fit.steps("ab")])
    assert fractions == [[0.125, 0.375], [0.625, 0.875]] and fit.epochs_done == 2


def test_the_end_of_the_seconds(clock):
    """The time counts where it is further than the epochs; at least one step is done."""
    fit = FitProgress(epochs=100, num_batches=2, seconds=10)
    fractions = []
    while not fit.is_over:
        for _ in fit.steps("ab"):
            fractions.append(fit.fraction)
            clock[0] += 4
    assert fractions == [0.0025, 0.4, 0.8] and fit.epochs_done == 1.5


def test_the_line_on_a_terminal(clock, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit = FitProgress(epochs=3, num_batches=2, seconds=math.inf)
    fit.end_step()
    assert capsys.readouterr().out == ""  # so soon
    clock[0] += 6
    fit.end_step()
    assert capsys.readouterr().out == f"\r{'epoch 2 of 3 [########............] 42%, 8 s left':59}\r"
    monkeypatch.setenv("COLUMNS", "20")
    clock[0] += 1
    fit.end_step()
    assert capsys.readouterr().out == "\repoch 2 of 3 [#####\r"
    for _ in range(3):
        fit.end_step()
    assert capsys.readouterr().out == "\r" + 19 * " " + "\r"  # nothing stays


def test_no_terminal(capsys, clock):
    fit = FitProgress(epochs=1, num_batches=2, seconds=math.inf)
    clock[0] += 60
    fit.end_step()
    assert capsys.readouterr().out == ""

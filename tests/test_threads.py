"""The number of threads is found by trying, in processes of their own, and kept."""

from __future__ import annotations

import argparse
import os
import sys
import time

from federation import threads
from federation.partitions import Examples

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")
EXAMPLES = Examples(np.zeros((4, 28, 28, 1), np.uint8), np.zeros(4, np.int64))


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Return a function that chooses the threads for a training that takes `seconds(threads)`, on four cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "TRIAL_TIME", 0.1)
    monkeypatch.setattr(threads, "TRIAL_TIMEOUT", 5)

    def choose(seconds, number=None):
        used = []
        args = argparse.Namespace(threads=number, data_dir=tmp_path, dataset="mnist")

        def train(model, examples, learning_rate, epochs, batch_size):
            assert (model, len(examples.labels), epochs) == ("model of mnist", 4, 1)
            time.sleep(seconds(used[-1]))

        chosen = threads.choose_threads(args, used.append, "model of {}".format, train, EXAMPLES)
        assert used == []  # the trials took place elsewhere
        return chosen

    return choose


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (lambda threads: 0.08 / threads, 4),
        (lambda threads: 0.08 / min(threads, 2), 2),
        (lambda threads: 0.08 / threads**0.4, 1),  # twice the threads save a quarter: not worth it
        (lambda threads: 0.02 * threads, 1),
    ],
)
def test_as_many_as_help(choose, seconds, best):
    assert choose(seconds) == best


def test_kept_for_the_next_start(choose, capsys, tmp_path, monkeypatch):
    assert choose(lambda threads: 0.08 / threads) == 4
    assert "training on 4 of 4 cores (measured, kept in" in capsys.readouterr().out
    assert choose(lambda threads: 1 / 0) == 4
    assert "training on 4 of 4 cores (measured before, kept in" in capsys.readouterr().out
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert choose(lambda threads: 0.01) == 1  # measured anew: this is another device
    for path in (tmp_path / "mnist").iterdir():
        path.write_text("damaged")
    assert choose(lambda threads: 0.01) == 1


def test_flag(choose, capsys):
    assert choose(lambda threads: 1 / 0, number=3) == 3
    assert "training on 3 of 4 cores (--threads)" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [lambda threads: 1 / 0, lambda threads: 60])
def test_a_trial_that_fails_or_hangs(choose, seconds):
    started = time.monotonic()
    assert choose(seconds) == 1
    assert time.monotonic() - started < 15

"""The number of threads is found by trying, in processes of their own, and kept.

These trials fork, as the real ones do, but nobody trains in them: their clock goes forward as told.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from pathlib import Path

from federation.client import threads
from federation.client.flags import ClientSettings
from federation.data.partitions import Partition

import numpy as np
import pytest
from fakes import as_if_from

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")


@pytest.fixture
def forked(monkeypatch) -> list[int]:
    """The processes that were forked in the test."""
    fork, forked = os.fork, []

    def watched():
        child = fork()
        forked.append(child)
        return child

    monkeypatch.setattr(os, "fork", watched)
    return forked


@pytest.fixture
def choose(tmp_path, monkeypatch, forked):
    """Return a function that chooses the threads for a client whose fit takes `seconds(threads)`, on four cores."""
    clock = [0.0]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(threads, "HERE", f"client-of-a-test-{os.getpid()}-")

    def choose(seconds, number=None, data_dir=tmp_path, dataset="mnist", script="/somewhere/client_x.py"):
        set_to: list[int] = []

        class Client:
            def __init__(self, name, train_set, validation_set):
                shape = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[name]
                for examples in (train_set, validation_set):
                    assert examples.images.shape == (threads.TRIAL_IMAGES, *shape)
                    assert examples.images.dtype == np.uint8 and len(examples.labels) == threads.TRIAL_IMAGES

            def get_parameters(self, config):
                return [np.zeros(3)]

            def fit(self, parameters, config):
                assert parameters[0].shape == (3,) and config == threads.TRIAL_CONFIG
                clock[0] += seconds(set_to[-1])

        as_if_from(script, Client, monkeypatch)
        settings = ClientSettings(Partition(dataset, 0, 50, data_dir), threads=number)
        if threads.shared_cores.socket:  # of the client before, whose process would be gone
            threads.shared_cores.socket.close()
        monkeypatch.setattr(threads, "shared_cores", threads.SharedCores())
        chosen = threads.choose_threads(settings, set_to.append, Client)
        assert set_to == []  # the trials took place elsewhere
        for child in forked:
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
        return chosen

    return choose


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/*"))


@pytest.mark.parametrize(
    ("seconds", "best", "trials"),
    [
        (lambda threads: 0.08 / threads, 4, 3),
        (lambda threads: 0.08 / min(threads, 2), 2, 3),
        (lambda threads: 0.08 / threads**0.53, 2 * 2, 3),  # twice the threads save 31 %: just worth it
        (lambda threads: 0.08 / threads**0.5, 1, 2),  # twice the threads save 29 %: not worth it
        (lambda threads: 0.02 * threads, 1, 2),
    ],
)
def test_as_many_as_help(choose, forked, capsys, seconds, best, trials):
    assert choose(seconds) == best
    assert len(forked) == trials
    assert f"training on {best} of 4 cores (measured, kept in" in capsys.readouterr().out


def test_six_cores(choose, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert choose(lambda threads: 0.08 / threads) == 4


def test_one_core_needs_no_trial(choose, forked, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert choose(lambda threads: 1 / 0) == 1
    assert forked == []
    assert "training on 1 of 1 cores" in capsys.readouterr().out


def test_a_busy_device_does_not_mislead(choose):
    slow_at_first = {threads: iter([60, 0.3, 0.08 / threads, 0.3, 0.3]) for threads in (1, 2, 4)}
    assert choose(lambda threads: next(slow_at_first[threads])) == 4


def test_kept_for_the_next_start(choose, forked, capsys, tmp_path):
    assert choose(lambda threads: 0.08 / threads) == 4
    path = tmp_path / "mnist" / "threads_client_x.json"
    assert kept(tmp_path / "mnist") == [path]
    assert capsys.readouterr().out == f"training on 4 of 4 cores (measured, kept in {path})\n"
    del forked[:]
    assert choose(lambda threads: 1 / 0) == 4
    assert forked == []
    assert capsys.readouterr().out == f"training on 4 of 4 cores (measured before, kept in {path})\n"


def test_measured_anew_on_another_device(choose, forked, monkeypatch):
    assert choose(lambda threads: 0.08 / threads) == 4
    del forked[:]
    monkeypatch.setattr(threads, "describe", lambda: "another board")
    assert choose(lambda threads: 0.08) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert choose(lambda threads: 0.08 / threads) == 2
    assert len(forked) == 4


def test_measured_anew_for_another_data_set_and_script(choose, forked, tmp_path):
    assert choose(lambda threads: 0.08 / threads) == 4
    assert choose(lambda threads: 0.08, dataset="cifar10") == 1
    assert choose(lambda threads: 0.08, script="client_y.py") == 1
    assert [path.name for path in kept(tmp_path) if path.is_file()] == [
        "threads_client_x.json", "threads_client_x.json", "threads_client_y.json",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["", "damaged", "{}", "[]", '{"device": "x", "threads": 2}', "4"])
def test_measured_anew_if_the_file_is_of_no_use(choose, tmp_path, content):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "threads_client_x.json").write_text(content)
    assert choose(lambda threads: 0.08) == 1
    assert '"threads": 1' in (tmp_path / "mnist" / "threads_client_x.json").read_text()


def test_a_folder_that_cannot_be_written(choose, tmp_path, capsys):
    (tmp_path / "mnist").write_text("no folder")
    assert choose(lambda threads: 0.08 / threads) == 4
    assert capsys.readouterr().out == "training on 4 of 4 cores (measured)\n"


def test_flag(choose, forked, capsys, tmp_path):
    assert choose(lambda threads: 1 / 0, number=3) == 3
    assert forked == [] and kept(tmp_path) == []
    assert "training on 3 of 4 cores (--threads)" in capsys.readouterr().out


TROUBLES = {
    "error": (lambda threads: 1 / 0, "ZeroDivisionError: division by zero"),
    "killed": (lambda threads: os.kill(os.getpid(), signal.SIGKILL), "it was killed"),
    "hangs": (lambda threads: time.sleep(20), "no end in 0.05 s"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trial_that_fails_is_told_and_not_kept(choose, forked, monkeypatch, capsys, tmp_path, trouble):
    seconds, reason = TROUBLES[trouble]
    monkeypatch.setattr(threads, "TRIAL_TIMEOUT", 0.05 if trouble == "hangs" else 60)
    assert choose(seconds) == 1
    assert capsys.readouterr().out == (
        f"the trial of threads failed ({reason})\ntraining on 1 of 4 cores (more could not be tried)\n"
    )
    assert len(forked) == 1 and kept(tmp_path) == []


def test_a_trial_of_more_threads_that_fails_leaves_those_that_work(choose, capsys):
    assert choose(lambda threads: 0.08 / threads if threads < 4 else 1 / 0) == 2
    assert "the trial of threads failed (ZeroDivisionError: division by zero)" in capsys.readouterr().out


def test_a_trial_is_silent(choose, capfd):
    def seconds(threads):
        os.write(1, b"a banner\n")
        os.write(2, b"a warning\n")
        return 0.08

    assert choose(seconds) == 1
    assert "a banner" not in (captured := capfd.readouterr()).out and captured.err == ""


def test_no_fork_no_trial(choose, forked, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(threads, "sys", types.SimpleNamespace(platform="darwin"))
    assert choose(lambda threads: 0.08 / threads) == 1
    assert forked == [] and kept(tmp_path) == []
    assert capsys.readouterr().out == "training on 1 of 4 cores (more could not be tried)\n"


@pytest.fixture
def another_client():
    """Return a function that starts another client on this machine, as far as the first one can tell."""
    others = []

    def another_client() -> threads.SharedCores:
        others.append(threads.SharedCores())
        others[-1].count_me()
        return others[-1]

    yield another_client
    for other in others:
        other.socket.close()


def test_other_clients_have_their_share_of_the_cores(choose, another_client, forked, capsys, tmp_path):
    for clients, cores in ((2, 2), (3, 1), (4, 1), (5, 1)):
        another_client()
        assert choose(lambda threads: 0.08 / threads) == cores
        said = f"training on {cores} of 4 cores (measured; clients on this machine: {clients})\n"
        assert capsys.readouterr().out == said
    assert len(forked) == 2 and kept(tmp_path) == []  # nothing that would hold for a client alone


def test_what_was_measured_alone_is_the_most(choose, another_client, forked):
    assert choose(lambda threads: 0.08 / min(threads, 2)) == 2
    another_client()
    assert choose(lambda threads: 1 / 0) == 2
    another_client()
    assert choose(lambda threads: 1 / 0) == 1


def test_threads_change_with_the_clients_on_this_machine(choose, another_client, capsys):
    choose(lambda threads: 0.08 / threads)
    set_to: list[int] = []
    threads.shared_cores.set_threads = set_to.append
    capsys.readouterr()
    threads.shared_cores.before_fit()
    first, second = another_client(), another_client()
    for _ in range(2):
        threads.shared_cores.before_fit()
    first.socket.close()
    threads.shared_cores.before_fit()
    second.socket.close()
    threads.shared_cores.before_fit()
    assert set_to == [1, 2, 4]
    assert capsys.readouterr().out == "".join(
        f"training on {number} of 4 cores (clients on this machine: {clients})\n"
        for number, clients in ((1, 3), (2, 2), (4, 1))
    )


def test_a_number_that_is_final_or_asked_for_stays(choose, another_client, capsys):
    choose(lambda threads: 0.08 / threads)

    def final(number):
        raise RuntimeError("cannot be modified after initialization")

    threads.shared_cores.set_threads = final
    another_client()
    capsys.readouterr()
    threads.shared_cores.before_fit()
    assert capsys.readouterr().out == "" and threads.shared_cores.threads == 4

    assert choose(lambda threads: 1 / 0, number=4) == 4
    assert "training on 4 of 4 cores (--threads)" in capsys.readouterr().out
    threads.shared_cores.before_fit()
    assert capsys.readouterr().out == ""

"""run_demo.sh as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest
from processes import PROMPTLY, ROOT


def running_in(session: int) -> list[str]:
    """The processes of a session, by `ps`; not those that have ended but nobody has asked how (Z)."""
    lines = subprocess.run(["ps", "-eo", "sess,stat,pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if line.split()[0] == str(session) and line.split()[1][0] != "Z"]


@pytest.mark.parametrize(
    ("flags", "rounds", "accuracy"),
    [
        ([], 3, 0.95),
        pytest.param(["--tf"], 3, 0.95, marks=pytest.mark.slow),
        pytest.param(["--onnx"], 1, 0.9, marks=pytest.mark.slow),
    ],
)
def test_demo(start, flags, rounds, accuracy):
    demo = start("run_demo.sh", *flags, python="bash", start_new_session=True)
    assert demo.exit_code() == 0, demo.output
    assert demo.output.count(": 2 results and 0 failures") == rounds
    assert float(re.search(rf"round {rounds}: .* central accuracy (\S+),", demo.output).group(1)) >= accuracy
    folder = ROOT / re.search(r"results in (\S+)", demo.output).group(1)
    assert {"rounds.csv", "clients.csv", "model.npz", "history.png"} <= {path.name for path in folder.iterdir()}
    assert running_in(demo.popen.pid) == []


def test_ctrl_c_leaves_no_process_behind(start):
    demo = start("run_demo.sh", python="bash", start_new_session=True)
    demo.wait_for("round 1: 2 results")
    os.killpg(demo.popen.pid, signal.SIGINT)
    assert demo.exit_code(PROMPTLY) == 130
    deadline = time.monotonic() + PROMPTLY
    while running_in(demo.popen.pid):
        assert time.monotonic() < deadline, running_in(demo.popen.pid)
        time.sleep(0.1)


def test_words_it_does_not_know(start):
    demo = start("run_demo.sh", "--jax", python="bash")
    assert demo.exit_code() == 2 and "./run_demo.sh --tf" in demo.output

"""What a person sees: real servers and clients in a terminal, tmux, whose screen is read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Variant
from processes import DEADLINE, PROMPTLY, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")]


class Terminal:
    """A tmux of the test's own, with a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shell = f"cd {ROOT}; PS1='$ '"
        (folder / "rc").write_text(f"{shell}\n")
        self.tmux("new-session", "-d", "-x", "130", "-y", "40", f"bash --noprofile --rcfile {folder}/rc")
        self.wait_for("$")

    def tmux(self, *words: object) -> str:
        environment = {**os.environ, "TMUX_TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8"}
        command = ["tmux", "-f", "/dev/null", *map(str, words)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=30).stdout

    def type(self, *words: object) -> None:
        self.tmux("send-keys", "-l", shlex.join(map(str, words)))
        self.tmux("send-keys", "Enter")

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p").rstrip()

    @property
    def everything(self) -> str:
        """With what has gone off the screen; lines that the terminal has broken are whole."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-1000").rstrip()

    def wait_for(self, pattern: str, timeout: float = DEADLINE) -> str:
        """Wait until the screen has what the regular expression says; return the screen."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, screen := self.screen, re.M):
            assert time.monotonic() < deadline, f"no {pattern!r} within {timeout} s:\n{screen}"
            time.sleep(0.05)
        return screen


@pytest.fixture
def variant() -> Variant:
    return Variant()


@pytest.fixture
def terminal(tmp_path):
    folder = tmp_path / "tmux"
    folder.mkdir()
    terminal = Terminal(folder)
    yield terminal
    terminal.tmux("kill-server")


@pytest.fixture
def serve(terminal, address, results):
    def serve(*flags: object) -> None:
        terminal.type(sys.executable, "server.py", "--server_address", address, "--results_dir", results, *flags)
        terminal.wait_for("clients connect")

    return serve


def test_a_run(terminal, serve, start_device, results):
    serve("--rounds", 3, "--min_num_clients", 2)
    terminal.wait_for("^round 1 of 3: 0 of 2 clients are here$")
    slow, fast = start_device(0, sleep=4), start_device(1, sleep=1)
    terminal.wait_for(r"^round 1 of 3: \d s$")
    terminal.wait_for(r"^ +0 .* training \d s *$(\n.*)*^ +1 .* idle *$")
    screen = terminal.wait_for(r"^round 2 of 3 ━+─* \d s of about \d s; about \d+ s to the end$")
    assert re.search(r"^round 1: 2 results and 0 failures", screen, re.M)  # above it
    terminal.wait_for(r"^ +0 .* training \d s of about 4 s +0\.5000 +4\.\d s")
    fast.popen.kill()
    terminal.wait_for(r"^ +1 .* lost \d s ago")
    start_device(0).wait_for("trying again")
    terminal.wait_for(r"^client 0 on .* is refused: its --cid is taken", PROMPTLY)
    again = start_device(1, sleep=1)
    terminal.wait_for("3 of 3 rounds done", 60)
    terminal.wait_for(r"^\$$")
    screen = terminal.screen
    assert not re.search("^(cid|round 3 of 3)", screen, re.M)  # the table has gone
    lines = terminal.everything.splitlines()
    assert len([line for line in lines if re.match(r"round \d: \d results", line)]) == 3
    assert lines[-2:] == [f"3 of 3 rounds done, results in {results}", "$"]
    assert "" not in lines and not [line for line in lines if "━" in line or "─" in line]  # nothing of it was left
    assert slow.exit_code() == 0 and again.exit_code() == 0


def test_resizing(terminal, serve, start_device):
    serve("--rounds", 100, "--min_num_clients", 2)
    for cid in (0, 1):
        start_device(cid, sleep=3)
    terminal.wait_for("^round 2 of 100 ")
    for columns, rows in ((90, 40), (60, 30), (100, 20), (130, 40)):
        terminal.tmux("resize-window", "-x", columns, "-y", rows)
        time.sleep(1.2)
        screen = terminal.screen
        assert len(re.findall(r"^round \d+ of 100", screen, re.M)) == 1, screen  # one table
        assert len(re.findall(r"^cid ", screen, re.M)) == 1, screen
        assert re.search(r"^ +1 .*(training|idle)", screen.splitlines()[-1]), screen
        assert max(map(len, screen.splitlines())) <= columns
    assert "round 1: 2 results and 0 failures" in terminal.everything
    terminal.tmux("send-keys", "C-c")
    terminal.wait_for(r"^\d+ of 100 rounds done(.*\n)+\$$")


def test_plain(terminal, serve, start_device):
    serve("--rounds", 1, "--min_num_clients", 1, "--plain")
    start_device(0, sleep=2)
    terminal.wait_for("1 of 1 rounds done")
    assert not re.search("cid|━|of 1:", terminal.everything.replace("--min_num", ""))


@pytest.mark.parametrize("framework", ["pytorch", "tf"])
def test_a_client(terminal, start, address, mnist, tmp_path, framework):
    server = start(
        "server.py", "--server_address", address, "--epochs", 40, "--min_num_clients", 1, "--rounds", 2,
        "--results_dir", tmp_path / "results",
    )  # fmt: skip
    flags = "--cid", 0, "--num_clients", 2, "--mnist", "--data_dir", mnist, "--threads", 1
    terminal.type(sys.executable, f"client_{framework}.py", *flags, "--server_address", address)
    terminal.wait_for(r"^round 1, epoch \d+ of 40 ━+─+ \d+%, \d+ s left, then the server averages$")
    server.popen.kill()
    terminal.wait_for("^not connected, tries again$")
    screen = terminal.wait_for("^lost the server")
    assert "epoch " not in screen
    terminal.tmux("send-keys", "C-c")
    terminal.wait_for(r"^(\^C)?stopped by SIGINT\n\$$")
    assert "not connected" not in terminal.everything


def test_the_picture_is_fresh_while_the_run_goes_on(start_server, start_device, results):
    server = start_server("--rounds", 100, "--min_num_clients", 1)
    start_device(0, sleep=3)
    picture = results / "history.png"
    for rounds in (3, 6):
        server.wait_for(f"round {rounds}: 1 results")
        deadline = time.monotonic() + PROMPTLY
        while not picture.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()


def test_a_long_round_says_who_is_missing(start_server, start_device):
    server = start_server("--rounds", 1, "--min_num_clients", 2)
    start_device(0, sleep=130)
    start_device(1)
    server.wait_for("round 1 still waits for client 0 on ", timeout=150)
    assert server.exit_code() == 0
    told = [line for line in server.output.splitlines() if "still waits" in line]
    assert 1 <= len(told) <= 2
    assert re.search(r"client 0 on .* \(training, ([6-9]|1[01])\d s\)$", told[0])

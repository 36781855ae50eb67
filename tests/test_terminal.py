"""What a person sees: a real server in a terminal, tmux, whose screen is read."""

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
        (folder / "rc").write_text(f"cd {ROOT}; PS1='$ '\n")
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


def test_a_run(terminal, address, start_device, results):
    terminal.type(sys.executable, "server.py", "--server_address", address, "--results_dir", results)
    terminal.wait_for("^round 1 of 3: 0 of 2 clients are connected$")
    slow, fast = start_device(0, sleep=4), start_device(1, sleep=1)
    terminal.wait_for(r"^round 1 of 3: \d s$")
    terminal.wait_for(r"^ +0 .* training \d s *$(\n.*)*^ +1 .* idle *$")
    screen = terminal.wait_for(r"^round 2 of 3: \d s of about \d s, about \d+ s to the end$")
    assert re.search(r"^round 1: 2 results and 0 failures", screen, re.M)  # above it
    terminal.wait_for(r"^ +0 .* training \d s +0\.5000 +4\.\d s")
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
    assert not [line for line in lines if "─" in line]  # nothing of it was left
    assert slow.exit_code() == 0 and again.exit_code() == 0


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

"""Virtual boards, set up as the documents say, word for word, lose power, restart, lose the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Iterator

import pytest
import virtual_boards
from conftest import copy_sample
from processes import PROMPTLY, Process, Processes
from test_readme import PAGES, blocks, copy_project, headers
from virtual_boards import CONTROL_GROUPS, Board, VirtualBoards, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(virtual_boards.missing()), reason=virtual_boards.missing()),
]
UNIT = "systemd/flower-client@.service"
NUM_BOARDS = 3
INSTALL_SECONDS = 1200


def documented(title: str, board: Board) -> list[str]:
    """Return the blocks for a Raspberry Pi under a heading of the documents, for `board`, MNIST and TensorFlow."""
    texts = [block.text for block in blocks(*PAGES) if block.title == title and "Raspberry Pi" in block.comment]
    assert texts, title
    changes = {
        "pi-1.local": board.name,
        "requirements_pytorch.txt": "requirements_tf.txt",
        "client_pytorch.py --cid=0": "client_tf.py --mnist --cid=0",
    }
    for old, new in changes.items():
        texts = [text.replace(old, new) for text in texts]
    return texts


class Laptop:
    """The project's folder on the laptop, and what runs there."""

    def __init__(self, boards: VirtualBoards, processes: Processes) -> None:
        self.boards = boards
        self.processes = processes
        self.num_runs = 0

    def start(self, *command: str) -> Process:
        # with the virtual environment activated
        path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
        _, *words = self.boards.on_laptop("env", path, *command)
        return self.processes.start(*words, python="ip")

    def paste(self, commands: str, timeout: float = 300) -> str:
        """Run commands in a terminal."""
        process = self.start("bash", "-e", "-c", commands)
        assert process.exit_code(timeout) == 0, f"{commands}\n{process.output}"
        return process.output

    def serve(self, *arguments: object) -> Process:
        self.num_runs += 1
        flags = ("--results_dir", f"results/{self.num_runs}", *arguments)
        server = self.start("python", "server.py", *map(str, flags))
        server.wait_for(f"clients connect with --server_address={virtual_boards.LAPTOP}:8080")
        return server


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> Iterator[VirtualBoards]:
    with VirtualBoards(tmp_path_factory.mktemp("boards"), number=NUM_BOARDS) as boards:
        yield boards


@pytest.fixture(scope="module")
def laptop(boards, tmp_path_factory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("laptop")
    copy_project(folder / "embedded-devices")
    copy_sample(folder / "embedded-devices/data")
    with Processes(folder, folder / "embedded-devices") as processes:
        yield Laptop(boards, processes)


@pytest.fixture(scope="module")
def first_run(boards, laptop) -> Process:
    """The server of a run in which the first board has taken part, set up as the documents say."""
    board = boards[0]
    (login,) = documented("The first login", board)
    ssh, install = login.splitlines()
    boot = board.boot_id()
    shell = subprocess.run(
        boards.on_laptop("bash", "-c", ssh), input=install, capture_output=True, text=True, timeout=300
    )
    board.wait_until_up(after=boot)
    assert "Setting up python3-venv" in shell.stdout, shell.stdout + shell.stderr

    (swap,) = documented("Swap for small boards", board)
    assert " && sudo swapon /swapfile" in swap
    board.ssh(f"set -e; {swap.replace(' && sudo swapon /swapfile', '')}")  # which no container may do

    copy, packages, client = documented("The client", board)
    laptop.paste(copy)
    laptop.paste("python -m federation.data --mnist --cid 0 1 2")
    (data,) = documented("Devices without internet", board)
    laptop.paste(data)
    server = laptop.serve("--rounds", 2, "--min_num_clients", 1)
    output = board.ssh(f"set -e\n{packages}{client}", timeout=INSTALL_SECONDS)
    assert "the server has ended the run" in output
    return server


@pytest.fixture(scope="module")
def same_cards(boards, first_run) -> None:
    """Copies of the first board's card are in all the others."""
    for board in boards:
        board.power_off()
    first, *others = boards
    for board in others:
        run("cp", "--sparse=always", first.disk, board.disk, timeout=300)
    for board in boards:
        board.power_on()


def test_by_hand_and_nothing_is_left(start, tmp_path):
    """After Ctrl-C; after a kill, by the next start."""
    (block,) = [block for block in blocks("CONTRIBUTING.md") if "virtual_boards.py" in block.text]
    _, _, *command = block.text.split()
    names = []
    for signal, exit_code in ((SIGKILL, -SIGKILL), (SIGINT, 0)):
        process = start(*command, env={"TMPDIR": str(tmp_path)})
        process.wait_for("pi@board-4")
        login = process.output.splitlines()[0].split()
        assert run(*login, "hostname") == "board-1\n"
        process.popen.send_signal(signal)
        assert process.exit_code(PROMPTLY) == exit_code, process.output
        (name,) = [word for word in login if word.endswith(f"-{process.popen.pid}")]
        names.append(name)
    networks = run("ip", "netns")
    for name in names:
        assert name not in networks and not Path("/etc/netns", name).exists()
        assert not [*CONTROL_GROUPS.rglob(f"{name}-*")]


@pytest.fixture
def keep_running(request):
    """Return a function that has a board's client run under systemd until the end of the test, as the unit says."""
    install, edit, enable, follow, disable = headers()[UNIT]

    def keep_running(board: Board, cid: int) -> str:
        """Return the command that shows what the client prints."""
        assert edit.startswith("sudo nano ")
        edited = edit.replace("nano", "sed --in-place 's/client_pytorch.py/client_tf.py --mnist/'")
        for command in (install, edited, enable):
            board.ssh("cd embedded-devices && " + command.replace("@0", f"@{cid}"))
        request.addfinalizer(lambda: board.ssh(disable.replace("@0", f"@{cid}")))
        return follow.replace("@0", f"@{cid}")

    return keep_running


def assert_rounds(server: Process, *rounds: str) -> None:
    """Each round has these results and failures."""
    assert server.exit_code() == 0, server.output
    for number, counts in enumerate(rounds, 1):
        assert re.search(f"round {number}: {counts}", server.output), server.output
    assert f"{len(rounds)} of {len(rounds)} rounds done" in server.output


def test_a_board_as_the_readme_says(boards, laptop, first_run, keep_running):
    assert_rounds(first_run, "1 results and 0 failures", "1 results and 0 failures")
    follow = keep_running(boards[0], 0)
    journal = laptop.start("ssh", f"pi@{boards[0].name}", follow)
    server = laptop.serve("--rounds", 1, "--min_num_clients", 1)
    assert_rounds(server, "1 results and 0 failures")
    journal.wait_for("the server has ended the run")
    boards[0].reboot()
    assert_rounds(laptop.serve("--rounds", 1, "--min_num_clients", 1), "1 results and 0 failures")


@pytest.fixture
def server(boards, laptop, same_cards, keep_running) -> Process:
    """The server of a run of two rounds that need all boards; they are in the middle of the first."""
    for cid, board in enumerate(boards):
        keep_running(board, cid)
    server = laptop.serve(
        "--rounds", 2, "--min_num_clients", NUM_BOARDS, "--epochs", 10000, "--fit_seconds", 40,
    )  # fmt: skip
    server.wait_for(f"has joined, {NUM_BOARDS} now")
    time.sleep(10)
    return server


ALL = "3 results and 0 failures"


@pytest.mark.fault("power cut")
def test_power_cut(boards, server):
    boards[1].power_off()
    server.wait_for("round 1: 2 results and 1 failures")
    boards[1].power_on()
    assert_rounds(server, "2 results and 1 failures", ALL)


@pytest.mark.fault("restarted board")
def test_restart(boards, server):
    boards[1].reboot()
    in_time_or_not = "(3 results and 0|2 results and 1) failures"  # as fast as this machine is
    assert_rounds(server, in_time_or_not, ALL)


@pytest.mark.fault("pulled cable")
def test_network_down_and_up(boards, server):
    boards[1].disconnect()
    time.sleep(15)
    with pytest.raises(AssertionError, match="No route to host|timed out"):
        boards[1].boot_id()
    boards[1].connect()
    assert_rounds(server, ALL, ALL)

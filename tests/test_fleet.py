"""The playbooks in fleet/: what they refuse, and a fleet of virtual boards, from their first start to a federation."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import pytest
import virtual_boards
import yaml
from conftest import copy_sample
from processes import ROOT, Process, Processes
from test_boards import Laptop, assert_rounds
from test_readme import blocks, copy_project
from virtual_boards import Board, VirtualBoards

SETUP_SECONDS = 1800
ALL = "4 results and 0 failures"
needs_boards = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(virtual_boards.missing()), reason=virtual_boards.missing()),
]
EXAMPLE = yaml.safe_load((ROOT / "fleet/boards.example.yml").read_text())["all"]["vars"]


def write_inventory(path: Path, raspberry_pi: dict, jetson: dict | None = None, **settings: Any) -> None:
    children = {"raspberry_pi": {"hosts": raspberry_pi}, "jetson": {"hosts": jetson or {}}}
    path.write_text(yaml.safe_dump({"all": {"vars": {**EXAMPLE, **settings}, "children": children}}))


def refused(inventory: Path, *words: str) -> list[str]:
    """Return the sentences with which a playbook ends before it has touched a board."""
    playbook = Path(sys.executable).parent / "ansible-playbook"
    command = [playbook, "fleet/setup.yml", "--inventory", inventory, *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Log in" not in result.stdout
    return re.findall(r"Action failed: (.*)", result.stdout + result.stderr)


def test_no_boards(tmp_path):
    (sentence,) = refused(tmp_path / "none.yml")
    assert sentence.startswith("no boards: cp fleet/boards.example.yml fleet/boards.yml")


def test_mistakes_in_the_inventory(tmp_path):
    """Each board has another one."""
    (tmp_path / "ca.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    hosts = {
        "a": {},
        "b": {"cid": "x"},
        "c": {"cid": 1},
        "d": {"cid": 1},
        "e": {"cid": 2, "framework": "jax"},
        "f": {"cid": 3, "server_address": "192.168.1.10"},
        "g": {"cid": 4, "token": "nowhere"},
        "h": {"cid": 5, "certificate": str(tmp_path / "ca.key")},
        "i": {"cid": 6},
        "j": {"cid": 7, "superlink_address": "laptop"},
        "k": {"cid": 8, "superlink_address": "laptop:8000", "client_flags": "--threads 2"},
    }
    jetson = {"i": {}, "l": {"cid": 9, "superlink_address": "laptop:8000"}}
    write_inventory(tmp_path / "boards.yml", hosts, jetson)
    assert {*refused(tmp_path / "boards.yml")} == {
        "a needs a cid: 0, 1, 2...",
        "b needs a cid: 0, 1, 2...",
        "c and d have the same cid, 1",
        "framework is pytorch or tf, not jax",
        "server_address is HOST:PORT, such as 192.168.1.10:8080, not 192.168.1.10",
        "nowhere is no file in this folder",
        f"{tmp_path}/ca.key is a secret of this laptop: the boards get ca.crt",
        "i has to be in one of the groups raspberry_pi and jetson",
        "superlink_address is HOST:PORT, such as 192.168.1.10:8000, not laptop",
        "SuperNodes take no client_flags and no token",
        "l is a Jetson: a SuperNode there is started by hand (docs/engines.md)",
    }


def test_a_setting_is_missing(tmp_path):
    (tmp_path / "boards.yml").write_text("all: {children: {raspberry_pi: {hosts: {a: {cid: 0, folder: x}}}}}")
    (sentence,) = refused(tmp_path / "boards.yml")
    assert sentence.startswith("fleet/boards.yml lacks ansible_user, server_address, framework")


# From here on, there are boards.


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> Iterator[VirtualBoards]:
    with VirtualBoards(tmp_path_factory.mktemp("boards"), number=4) as boards:
        yield boards


@pytest.fixture(scope="module")
def laptop(boards, tmp_path_factory) -> Iterator[Laptop]:
    """The laptop with a fresh copy of the project, keys, and the inventory of four boards."""
    folder = tmp_path_factory.mktemp("laptop")
    project = folder / "embedded-devices"
    copy_project(project)
    copy_sample(project / "data")
    with Processes(folder, project) as processes:
        laptop = Laptop(boards, processes)
        laptop.paste(f"./make_certificates.sh {virtual_boards.LAPTOP} && openssl rand -hex 32 > token")
        laptop.paste(readme(0))
        write_inventory(
            project / "fleet/boards.yml",
            {"board-1": {"cid": 0}, "board-2.local": {"cid": 1}, "board-3": {"cid": 2}, "board-4": {"cid": 3}},
            framework="tf",
            certificate="certificates/ca.crt",
            token="token",
        )
        yield laptop
    # Connections that Ansible keeps for a minute.
    for pid in subprocess.check_output(["ip", "netns", "pids", boards.laptop], text=True).split():
        if Path(f"/proc/{pid}/comm").read_text() == "ssh\n":
            os.kill(int(pid), signal.SIGTERM)


def readme(number: int) -> str:
    """Return a block of the README's section."""
    return [block for block in blocks("README.md") if block.title == "A fleet"][number].text


def play(laptop: Laptop, *words: str) -> Process:
    """Run a playbook to its end."""
    process = laptop.start("ansible-playbook", *words)
    process.exit_code(SETUP_SECONDS)
    return process


def changes(process: Process) -> dict[str, int]:
    """Return how much a playbook that went well has changed on each board."""
    assert process.exit_code() == 0, process.output
    found = re.findall(r"^(board\S+) .* changed=(\d+) ", process.output, re.M)
    return {name: int(number) for name, number in found}


def unchanged(laptop: Laptop) -> bool:
    return {*changes(play(laptop, "fleet/setup.yml")).values()} == {0}


def main_pid(board: Board, cid: int) -> str:
    return board.ssh(f"systemctl show --property=MainPID --value flower-client@{cid}")


class Run(NamedTuple):
    """A run of the server with all boards, and how it came about."""

    setup: str  # what the playbooks printed
    server: Process
    seconds: float  # from the first command to the first committed round


def run_as_the_readme_says(laptop: Laptop) -> Run:
    started = time.monotonic()
    setup = laptop.paste(readme(1), timeout=SETUP_SECONDS)
    command = re.search(r"Now, on this laptop: python server.py (.*?)'?\n\n", setup, re.S)
    assert command, setup
    server = laptop.serve("--rounds", 2, *command[1].split())
    server.wait_for("round 1: ")
    seconds = time.monotonic() - started
    assert_rounds(server, ALL, ALL)
    return Run(setup, server, seconds)


@pytest.fixture(scope="module")
def first_run(laptop) -> Run:
    return run_as_the_readme_says(laptop)


class TestFleet:
    """The boards keep what one test has done to them for the next."""

    pytestmark = needs_boards

    def test_from_new_boards_to_a_committed_round(self, boards, laptop, first_run, record_property):
        again = run_as_the_readme_says(laptop)
        for run, words in ((first_run, "new boards"), (again, "boards that are set up")):
            figure = f"{run.seconds / 60:.1f} minutes from {len(boards.boards)} {words} to the first committed round"
            record_property("figure", figure)
        assert "encrypted" not in first_run.server.output  # as in "not encrypted: ..."

    def test_keys_are_for_the_user_alone(self, boards, first_run):
        for board in boards:
            files = board.ssh("cd embedded-devices && stat --format '%a %U %n' token certificates/*").splitlines()
            assert files == ["600 pi token", "600 pi certificates/ca.crt"]
            assert board.ssh("find / -xdev -name '*.key' -user pi 2> /dev/null || true") == ""

    def test_each_board_has_its_partition_alone(self, boards, first_run):
        for cid, board in enumerate(boards):
            found = board.ssh("cd embedded-devices/data && find . -name '*.npz' -o -name '*.parquet'")
            assert found.split() == [f"./mnist/50/{cid}.npz"]

    def test_what_the_boards_do(self, laptop, first_run):
        output = laptop.paste(readme(2))
        for name in ("board-1", "board-2.local", "board-3", "board-4"):
            # Or "activating": its run is over, and systemd starts it anew in a moment.
            assert re.search(rf"^ +{name}: '?(active|activating) since ", output, re.M), output
        assert "Warning" not in output and "journal" not in output and output.count("the server has ended the run") >= 4

    def test_only_what_is_new_is_copied_and_started(self, boards, laptop, first_run):
        assert unchanged(laptop)
        pid = main_pid(boards[0], 0)
        assert {*changes(play(laptop, "fleet/start.yml")).values()} == {0}
        assert main_pid(boards[0], 0) == pid
        with (laptop.processes.project / "client_tf.py").open("a") as file:
            file.write("# changed\n")
        copied = play(laptop, "fleet/setup.yml")
        assert {*changes(copied).values()} == {2}  # and notes that the client has to start anew
        assert boards[0].ssh("tail -n 1 embedded-devices/client_tf.py") == "# changed\n"
        assert main_pid(boards[0], 0) == pid
        play(laptop, "fleet/start.yml")
        assert main_pid(boards[0], 0) != pid
        assert unchanged(laptop)

    @pytest.mark.fault("restarted board")
    def test_a_board_restarts_in_mid_round(self, boards, laptop, first_run):
        server = laptop.serve(
            "--rounds", 2, "--min_num_clients", 4, "--epochs", 10000, "--fit_seconds", 40,
            "--certificates", "certificates", "--token_file", "token",
        )  # fmt: skip
        server.wait_for("has joined, 4 now")
        time.sleep(10)
        boards[3].reboot()
        server.wait_for(f"round 2: {ALL}")  # in the first, it may come too late

    def test_super_nodes(self, boards, laptop, first_run):
        """On two boards, as fleet/start.yml says in the end; then they are clients again."""
        inventory = laptop.processes.folder / "supernodes.yml"
        hosts = {"board-1": {"cid": 0}, "board-2.local": {"cid": 1}}
        address = f"{virtual_boards.LAPTOP}:9000"
        write_inventory(inventory, hosts, framework="tf", certificate="certificates/ca.crt", superlink_address=address)

        def play_here(playbook: str) -> Process:
            return play(laptop, "--inventory", str(inventory), f"fleet/{playbook}.yml")

        play_here("setup")
        said = re.search(r"msg: \|-\n(.*?)\n\nTASK", play_here("start").output, re.S)
        _, superlink, _, config, run = textwrap.dedent(said[1]).split("\n\n")
        home = laptop.processes.folder / "flower"
        home.mkdir()
        (home / "config.toml").write_text(config)

        def start(commands: str) -> Process:
            commands = re.sub("^fl", "exec fl", commands, flags=re.M)  # or the end of bash would not be that of Flower
            return laptop.start("env", f"FLWR_HOME={home}", "bash", "-c", commands)

        def start_superlink() -> Process:
            process = start(superlink)
            process.wait_for("Application startup complete")
            return process

        super_link = start_superlink()
        server = start(run.replace("--rounds 3", "--rounds 2"))
        server.exit_code(SETUP_SECONDS)
        assert_rounds(server, *2 * ["2 results and 0 failures"])
        assert len(re.findall("round 2: fit on 81 examples", play_here("logs").output)) == 2
        assert len(re.findall("active since .*: INFO", play_here("status").output)) == 2

        pid = main_pid(boards[0], 0)
        assert {*changes(play_here("start")).values()} == {0}
        assert main_pid(boards[0], 0) == pid
        super_link.popen.terminate()
        super_link.exit_code()
        super_link = start_superlink()
        super_link.wait_for("Activated node_id", count=2)  # by SuperNodes that systemd has started anew
        play_here("stop")
        for cid, board in enumerate(boards.boards[:2]):
            assert board.ssh(f"systemctl is-active flower-client@{cid} || true") == "inactive\n"
            assert board.ssh("ls -d /run/flower-client-* || true").startswith("ls: cannot access")
        super_link.popen.terminate()
        super_link.exit_code()

        assert changes(play(laptop, "fleet/start.yml"))["board-1"] > 0
        keys = "--certificates", "certificates", "--token_file", "token"
        assert_rounds(laptop.serve("--rounds", 1, "--min_num_clients", 4, *keys), ALL)

    def test_boards_that_fail_hold_nobody_up(self, boards, laptop, first_run):
        boards[2].ssh("rm -r embedded-devices/.venv/installed")
        boards[2].fill_disk()
        boards[3].power_off()
        with (laptop.processes.project / "client_tf.py").open("a") as file:
            file.write("# changed again\n")
        process = play(laptop, "fleet/setup.yml")
        assert process.exit_code() != 0
        sentences = re.findall(r"Action failed: (board-.*)", process.output)
        assert [sentence.partition(":")[0] for sentence in sentences] == ["board-3", "board-4"]
        assert re.fullmatch("board-3: [0-9] MB are free, and 3000 MB are needed", sentences[0])
        assert "ssh: connect to host board-4 port 22: " in sentences[1]
        for board in boards[:2]:
            assert board.ssh("tail -n 1 embedded-devices/client_tf.py") == "# changed again\n"
        boards[2].ssh("sudo rm /full")
        boards[3].power_on()
        mended = changes(play(laptop, "fleet/setup.yml"))
        assert [name for name, number in sorted(mended.items()) if number] == ["board-3", "board-4"]

    def test_a_board_that_goes_away_is_named(self, boards, laptop, first_run):
        boards[0].ssh("rm -r embedded-devices/.venv/installed")
        process = laptop.start("ansible-playbook", "fleet/setup.yml", "--limit", "board-1,board-2.local")
        process.wait_for("TASK [Install the packages]")
        boards[0].disconnect()
        assert process.exit_code() != 0
        boards[0].connect()
        assert re.findall(r"Action failed: (board-.*)", process.output) == ["board-1: the connection was lost"]
        changes(play(laptop, "fleet/setup.yml", "--limit", "board-1"))  # what the board has not done by itself since

    def test_stop(self, boards, laptop, first_run):
        laptop.paste("ansible-playbook fleet/stop.yml")
        for cid, board in enumerate(boards):
            state = board.ssh(
                f"systemctl is-active flower-client@{cid}; systemctl is-enabled flower-client@{cid} || true"
            )
            assert state.split() == ["inactive", "disabled"]

    def test_what_the_board_has_of_its_own_stays(self, boards, laptop, first_run):
        boards[0].ssh(
            "cd embedded-devices && echo own > data/mnist/50/0.npz && mkdir -p results && touch mine results/1"
        )
        assert unchanged(laptop)
        assert boards[0].ssh("cd embedded-devices && cat data/mnist/50/0.npz && ls mine results/1").split()[0] == "own"
        boards[0].ssh("rm embedded-devices/data/mnist/50/0.npz")
        assert changes(play(laptop, "fleet/setup.yml"))["board-1"] == 1

    def test_without_internet(self, boards, laptop, first_run):
        """The laptop, which has none either here, gets wheels from a folder."""
        boards[0].ssh("sudo rm /etc/pip.conf && rm -r embedded-devices/.venv")
        wheels = virtual_boards.fetch_python_packages(boards.cache)
        settings_of_uv = laptop.processes.project / "uv.toml"
        settings_of_uv.write_text(f'no-index = true\nfind-links = ["{wheels}"]\n')
        settings = (f"UV_CONFIG_FILE={settings_of_uv}", f"PIP_FIND_LINKS={wheels}", "PIP_NO_INDEX=1")
        words = ("ansible-playbook", "fleet/setup.yml", "-e", "offline=true", "--limit", "board-1")
        for number in range(2):
            process = laptop.start("env", *settings, *words)
            assert process.exit_code(SETUP_SECONDS) == 0, process.output
            assert (changes(process)["board-1"] == 0) == (number == 1)
        boards[0].ssh("cd embedded-devices && .venv/bin/python -c 'import tensorflow, flwr'")

    def test_a_jetson(self, boards, laptop, first_run):
        """With a stand-in for docker that writes down what it is asked."""
        board = boards[1]
        board.ssh(f"sudo tee /usr/local/bin/docker << 'end' && sudo chmod +x /usr/local/bin/docker\n{DOCKER}end\n")
        board.ssh("echo '# R35 (release), REVISION: 4.1, GCID: 1' | sudo tee /etc/nv_tegra_release")
        inventory = laptop.processes.project / "fleet/jetsons.yml"
        write_inventory(inventory, {}, {"board-2": {"cid": 7}}, framework="tf")
        for playbook in ("setup", "start", "start", "status", "logs", "stop"):
            process = play(laptop, "--inventory", str(inventory), f"fleet/{playbook}.yml")
            assert process.exit_code() == 0, process.output
        asked = board.ssh("cat /tmp/asked").splitlines()
        folder = "/home/pi/embedded-devices"
        (build,) = [line for line in asked if line.startswith("build")]
        assert build.endswith(f"--tag flower_client:tf {folder}/base_images/tensorflow")
        (start,) = [line for line in asked if line.startswith("run")]  # once, though it was asked for twice
        assert re.sub("flower_client=[0-9a-f]+ ", "", start) == (
            "run --detach --label --restart unless-stopped --name client_7 --hostname board-2 --runtime nvidia "
            f"--volume {folder}:/client flower_client:tf "
            "python client_tf.py --cid=7 --server_address=192.168.1.10:8080 --mnist"
        )
        assert asked[-1] == "rm --force 1234"


DOCKER = """#!/bin/sh
echo "$*" >> /tmp/asked
case "$*" in
    image*) test -e /tmp/image ;;
    build*) touch /tmp/image ;;
    run*) echo "$4" > /tmp/label ;;
    ps*=*=*) grep -qs "${4#label=}" /tmp/label && echo 1234; true ;;
    ps*) test ! -e /tmp/label || echo 1234 ;;
    logs*) echo "no server at 192.168.1.10:8080 yet" ;;
esac
"""

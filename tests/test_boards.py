"""Virtual boards, set up by hand and by the playbooks, as the documents say, word for word; what befalls them there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest
import virtual_boards
from conftest import copy_sample
from fake_hub import endpoint
from PIL import Image
from processes import PROMPTLY, ROOT, Process, Processes
from test_fleet import write_inventory
from test_readme import PAGES, blocks, copy_project
from virtual_boards import CONTROL_GROUPS, Board, VirtualBoards, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(virtual_boards.missing()), reason=virtual_boards.missing()),
]
UNIT = "systemd/flower-client@.service"
SETUP_SECONDS = 1800
KEYS = ("--certificates", "certificates", "--token_file", "token")
ALL = "2 results and 0 failures"


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

    def play(self, *words: str, settings: tuple[str, ...] = ()) -> Process:
        """Run a playbook to its end."""
        process = self.start("env", *settings, "ansible-playbook", *words)
        process.exit_code(SETUP_SECONDS)
        return process

    def changes(self, *words: str, settings: tuple[str, ...] = ()) -> list[int]:
        """Run a playbook that goes well; return how much it has changed on each board."""
        process = self.play(*words, settings=settings)
        assert process.exit_code() == 0, process.output
        found = re.findall(r"^(board\S+) .* changed=(\d+) ", process.output, re.M)
        return [int(number) for _, number in sorted(found)]


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> Iterator[VirtualBoards]:
    with VirtualBoards(tmp_path_factory.mktemp("boards"), number=2) as boards:
        yield boards


@pytest.fixture(scope="module")
def laptop(boards, tmp_path_factory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("laptop")
    copy_project(folder / "embedded-devices")
    copy_sample(folder / "embedded-devices/data")
    with Processes(folder, folder / "embedded-devices") as processes:
        yield Laptop(boards, processes)
    # Connections that Ansible keeps for a minute.
    for pid in subprocess.check_output(["ip", "netns", "pids", boards.laptop], text=True).split():
        if Path(f"/proc/{pid}/comm").read_text() == "ssh\n":
            os.kill(int(pid), signal.SIGTERM)


def assert_rounds(server: Process, *rounds: str) -> None:
    """Each round has these results and failures."""
    assert server.exit_code() == 0, server.output
    for number, counts in enumerate(rounds, 1):
        assert re.search(f"round {number}: {counts}", server.output), server.output
    assert f"{len(rounds)} of {len(rounds)} rounds done" in server.output


def test_no_board_is_left(start, tmp_path):
    """After a start by hand and Ctrl-C."""
    (block,) = [block for block in blocks("CONTRIBUTING.md") if "virtual_boards.py" in block.text]
    _, _, script, _ = block.text.split()
    process = start(script, 1, env={"TMPDIR": str(tmp_path)})
    process.wait_for("pi@board-1")
    login = process.output.splitlines()[0].split()
    assert run(*login, "hostname") == "board-1\n"
    process.popen.send_signal(signal.SIGINT)
    assert process.exit_code(PROMPTLY) == 0, process.output
    (name,) = [word for word in login if word.endswith(f"-{process.popen.pid}")]
    assert name not in run("ip", "netns") and not Path("/etc/netns", name).exists()
    assert not [*CONTROL_GROUPS.rglob(f"{name}-*")]


# By hand: the first board.


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


@pytest.fixture(scope="module")
def by_hand(boards, laptop) -> None:
    """The first board has been set up as the documents say, and has taken part in a run."""
    board = boards[0]
    (login,) = documented("The first login", board)
    ssh, install = login.splitlines()
    boot = board.boot_id()
    shell = subprocess.run(
        boards.on_laptop("bash", "-c", ssh), input=install, capture_output=True, text=True, timeout=300
    )
    board.wait_until_up(after=boot)
    assert "Setting up python3-venv" in shell.stdout, shell.stdout + shell.stderr

    copy, packages, client = documented("The client", board)
    laptop.paste(copy)
    laptop.paste("python -m federation.data --mnist --cid 0 1 2")
    (data,) = documented("Devices without internet", board)
    laptop.paste(data)
    server = laptop.serve("--rounds", 2, "--min_num_clients", 1)
    output = board.ssh(f"set -e\n{packages}{client}", timeout=SETUP_SECONDS)
    assert "the server has ended the run" in output
    assert_rounds(server, "1 results and 0 failures", "1 results and 0 failures")


def test_the_unit(boards, laptop, by_hand):
    """The client comes back after a run, a crash and a restart, but not after wrong flags; a stop is no failure."""
    board = boards[0]
    install, edit, enable, follow, disable = re.findall(r"^#     (\S.*)", (ROOT / UNIT).read_text(), re.M)
    assert edit.startswith("sudo nano ")
    edited = edit.replace("nano", "sed --in-place 's/client_pytorch.py/client_tf.py --mnist/'")

    def show(of_unit: str, cid: int) -> str:
        return board.ssh(f"systemctl show --value --property={of_unit} flower-client@{cid}").strip()

    def run_one_round() -> None:
        assert_rounds(laptop.serve("--rounds", 1, "--min_num_clients", 1), "1 results and 0 failures")

    for command in (install, edited, enable):
        board.ssh("cd embedded-devices && " + command)
    board.ssh("systemd-analyze verify /etc/systemd/system/flower-client@.service")
    journal = laptop.start("ssh", f"pi@{board.name}", follow)
    run_one_round()
    journal.wait_for("the server has ended the run")
    board.ssh("sudo systemctl kill --signal=SIGKILL flower-client@0")
    run_one_round()
    assert int(show("NRestarts", 0)) >= 1
    board.reboot()
    run_one_round()
    board.ssh(disable)
    assert show("ActiveState", 0) == "inactive"
    board.ssh("sudo systemctl start flower-client@50")  # there are only partitions 0 to 49
    deadline = time.monotonic() + PROMPTLY
    while show("ActiveState", 50) != "failed":
        assert time.monotonic() < deadline
    time.sleep(12)  # longer than RestartSec
    assert show("NRestarts", 50) == "0"


# By the playbooks: the first board, which is set up already, and the second, which is new.


def readme(number: int) -> str:
    """Return a block of the README's section."""
    return [block for block in blocks("README.md") if block.title == "A fleet"][number].text


def change_code(laptop: Laptop) -> str:
    """Change a file that a client uses; return its last line."""
    line = f"# changed at {time.time()}\n"
    with (laptop.processes.project / "client_tf.py").open("a") as file:
        file.write(line)
    return line


def main_pid(board: Board) -> str:
    return board.ssh("systemctl show --property=MainPID --value flower-client@fleet")


@pytest.fixture(scope="module")
def fleet(laptop, by_hand) -> Process:
    """The server of a first run with all boards."""
    laptop.paste(f"./make_certificates.sh {virtual_boards.LAPTOP} && openssl rand -hex 32 > token")
    laptop.paste(readme(0))
    inventory = laptop.processes.project / "fleet/boards.yml"
    keys = {"certificate": "certificates/ca.crt", "token": "token"}
    write_inventory(inventory, {"board-1": {"cid": 0}, "board-2.local": {"cid": 1}}, framework="tf", **keys)
    started = laptop.paste(readme(1), timeout=SETUP_SECONDS)
    command = re.search(r"Now, on this laptop: python\s+server.py (.*?)'?\n\n", started, re.S)
    assert command, started
    server = laptop.serve("--rounds", 2, *command[1].split())
    assert_rounds(server, ALL, ALL)
    return server


def test_a_fleet(boards, laptop, fleet):
    assert "encrypted" not in fleet.output  # as in "not encrypted: ..."
    for board in boards:
        assert board.ssh("cd embedded-devices && stat --format '%a %U' token ca.crt").split() == ["600", "pi"] * 2
        assert board.ssh("find / -xdev -name '*.key' -user pi 2> /dev/null || true") == ""
    assert (
        boards[1].ssh("cd embedded-devices/data && find . -name '*.npz' -o -name '*.parquet'") == "./mnist/50/1.npz\n"
    )
    output = laptop.paste(readme(2))
    # Or "activating": its run is over, and systemd starts it anew in a moment.
    assert len(re.findall(r"- flower-client@fleet is (active|activating) since ", output)) == 4, output
    assert output.count("the server has ended the run") >= 2


def test_only_what_is_new_is_copied_and_restarted(boards, laptop, fleet):
    """Also when Ansible is to become root for all."""
    assert laptop.changes("fleet/setup.yml", "-b") == [0, 0]
    pid = main_pid(boards[0])
    assert laptop.changes("fleet/start.yml", settings=("ANSIBLE_BECOME=true",)) == [0, 0]
    assert main_pid(boards[0]) == pid
    line = change_code(laptop)
    assert laptop.changes("fleet/setup.yml") == [2, 2]
    assert boards[0].ssh("tail -n 1 embedded-devices/client_tf.py") == line
    assert main_pid(boards[0]) != pid


def test_what_the_board_has_of_its_own_stays(boards, laptop, fleet):
    boards[0].ssh("cd embedded-devices && echo own > data/mnist/50/0.npz && mkdir -p results && touch mine results/1")
    process = laptop.play("fleet/setup.yml")
    said = " ".join(process.output.split())
    assert said.count("which differs from this laptop's") == said.count("board-1 keeps its data/mnist/50/0.npz") == 1
    assert boards[0].ssh("cd embedded-devices && cat data/mnist/50/0.npz && ls mine results/1").split()[0] == "own"
    boards[0].ssh("rm embedded-devices/data/mnist/50/0.npz")
    assert laptop.changes("fleet/setup.yml") == [2, 0]  # and has the client restart
    laptop.changes("fleet/start.yml")  # it may have ended, because it cannot use that file


def test_swap_that_cannot_be_had(boards, laptop, fleet):
    process = laptop.play("fleet/setup.yml", "--limit", "board-1", "-e", '{"needs_swap": true}')
    assert process.exit_code() == 0 and "no swap on board-1" in process.output, process.output
    assert boards[0].ssh("ls /swapfile* 2> /dev/null; grep swap /etc/fstab || true") == ""


def test_a_laptop_without_data_downloads_it_and_gives_each_board_its_partition(boards, laptop, fleet):
    """To boards that are in the inventory by their IPv6 addresses."""
    project = laptop.processes.project
    hub = laptop.start("python", "tests/fake_hub.py")
    hub.wait_for("port ")
    environment = endpoint(int(hub.output.split()[1]))
    inventory = project / "fleet/ipv6.yml"
    write_inventory(inventory, {board.ipv6: {"cid": 5 + place} for place, board in enumerate(boards)}, framework="tf")
    (project / "data").rename(project / "elsewhere")
    try:
        setting = [f"{name}={value}" for name, value in environment.items()]
        process = laptop.play("fleet/setup.yml", "--inventory", str(inventory), settings=tuple(setting))
        assert process.exit_code() == 0, process.output
        assert [path.name for path in (project / "data/mnist").glob("*.parquet")]
    finally:
        shutil.rmtree(project / "data", ignore_errors=True)
        (project / "elsewhere").rename(project / "data")
    assert boards[0].ssh("cd embedded-devices/data/mnist/50 && ls 5.npz") == "5.npz\n"
    found = boards[1].ssh("cd embedded-devices/data && find . -name '*.npz' -o -name '*.parquet'").split()
    assert sorted(found) == ["./mnist/50/1.npz", "./mnist/50/6.npz"]


@pytest.fixture
def server(laptop, fleet) -> Process:
    """The server of a run of two rounds that need both boards; they are in the middle of the first."""
    server = laptop.serve("--rounds", 2, "--min_num_clients", 2, "--epochs", 10000, "--fit_seconds", 40, *KEYS)
    server.wait_for("has joined, 2 now")
    time.sleep(10)
    return server


@pytest.mark.fault("power cut")
def test_power_cut(boards, server):
    boards[1].power_off()
    server.wait_for("round 1: 1 results and 1 failures")
    boards[1].power_on()
    assert_rounds(server, "1 results and 1 failures", ALL)


@pytest.mark.fault("restarted board")
def test_restart(boards, server):
    boards[1].reboot()
    in_time_or_not = "(2 results and 0|1 results and 1) failures"  # as fast as this machine is
    assert_rounds(server, in_time_or_not, ALL)


@pytest.mark.fault("pulled cable")
def test_network_down_and_up(boards, server):
    boards[1].disconnect()
    time.sleep(15)
    with pytest.raises(AssertionError, match="No route to host|timed out"):
        boards[1].boot_id()
    boards[1].connect()
    assert_rounds(server, ALL, ALL)


def test_boards_that_fail_hold_nobody_up(boards, laptop, fleet):
    boards[1].ssh("rm -r embedded-devices/.venv/installed")
    boards[1].fill_disk()
    full = laptop.play("fleet/setup.yml", "-e", '{"needs_swap": true}')  # which takes 2 GB itself
    assert full.exit_code() == 2
    assert re.findall(r"fatal: \[(.*?)\]", full.output) == ["board-2.local"]
    assert re.search(r"Action failed: [0-9]+ MB are free, but 5000 MB are needed", full.output)
    boards[1].ssh("sudo rm /full")
    boards[1].power_off()
    line = change_code(laptop)
    off = laptop.play("fleet/setup.yml")
    assert off.exit_code() == 4
    assert re.findall(r"^\[?fatal: \[(.*?)\]: UNREACHABLE", off.output, re.M) == ["board-2.local"]
    assert "ssh: connect to host board-2.local port 22: " in off.output
    assert boards[0].ssh("tail -n 1 embedded-devices/client_tf.py") == line
    boards[1].power_on()
    mended = laptop.changes("fleet/setup.yml")
    assert mended[0] == 0 and mended[1] > 0


def test_super_nodes(boards, laptop, fleet):
    """With the commands that docs/engines.md has."""
    address = f"{virtual_boards.LAPTOP}:9000"
    inventory = laptop.processes.folder / "supernodes.yml"
    hosts = {"board-1": {"cid": 0}, "board-2": {"cid": 1}}
    write_inventory(inventory, hosts, framework="tf", superlink_address=address)
    of_fleet = ("--inventory", str(inventory))
    laptop.changes("fleet/setup.yml", *of_fleet)
    told = laptop.play("fleet/start.yml", *of_fleet).output
    assert "docs/engines.md, with --min_num_clients 2" in " ".join(told.split())
    superlink, _, flwr_run = [block.text for block in blocks("docs/engines.md") if block.title == "A deployment"][:3]
    home = laptop.processes.folder / "flower"
    changes = {
        "--host 0.0.0.0": "--host 0.0.0.0 --port 9000",
        "192.168.1.10:8000": address,
        "~/.flwr": str(home),
        "--mnist": "--mnist --train_with tf",
        "--rounds 3": "--rounds 2",
    }

    def start(commands: str) -> Process:
        for old, new in changes.items():
            commands = commands.replace(old, new)
        commands = re.sub("^fl", "exec fl", commands, flags=re.M)  # or the end of bash would not be that of Flower
        return laptop.start("env", f"FLWR_HOME={home}", "bash", "-c", commands)

    link = start(superlink)
    link.wait_for("Application startup complete")
    server = start(flwr_run)
    server.exit_code(SETUP_SECONDS)
    assert_rounds(server, ALL, ALL)
    pid = main_pid(boards[0])
    assert laptop.changes("fleet/start.yml", *of_fleet) == [0, 0]
    assert main_pid(boards[0]) == pid
    assert len(re.findall("@fleet is active since ", laptop.play("fleet/status.yml", *of_fleet).output)) == 2
    link.popen.terminate()
    link.exit_code()
    link = start(superlink)
    link.wait_for("Activated node_id", count=2)  # by SuperNodes that systemd has started anew
    laptop.paste("ansible-playbook fleet/stop.yml")
    link.popen.terminate()
    link.exit_code()
    for board in boards:
        state = board.ssh("systemctl is-active flower-client@fleet; systemctl is-enabled flower-client@fleet || true")
        assert state.split() == ["inactive", "disabled"]


def test_without_internet(boards, laptop, fleet):
    """The laptop, which has none either here, gets wheels from a folder."""
    boards[0].ssh("sudo rm /etc/pip.conf && rm -r embedded-devices/.venv")
    wheels = virtual_boards.fetch_python_packages(boards.cache)
    settings_of_uv = laptop.processes.project / "uv.toml"
    settings_of_uv.write_text(f'no-index = true\nfind-links = ["{wheels}"]\n')
    settings = (f"UV_CONFIG_FILE={settings_of_uv}", f"PIP_FIND_LINKS={wheels}", "PIP_NO_INDEX=1")
    words = ("fleet/setup.yml", "-e", "offline=true", "--limit", "board-1")
    assert laptop.changes(*words, settings=settings) != [0]
    assert laptop.changes(*words, settings=settings) == [0]
    boards[0].ssh("cd embedded-devices && .venv/bin/python -c 'import tensorflow, flwr'")


def test_photos_that_a_board_has_stay_there_and_are_learned_from(boards, laptop):
    board = boards[1]
    inventory = laptop.processes.project / "fleet/photos.yml"
    flags = {"client_flags": "--photos photos", "num_clients": 7}  # there is no partition, so the number is no matter
    write_inventory(inventory, {board.name: {"cid": 0}}, framework="onnx", **flags)
    of_fleet = ("--inventory", str(inventory))
    laptop.changes("fleet/setup.yml", *of_fleet)
    for place, name in enumerate(("cup", "spoon")):
        folder = laptop.processes.folder / "photos" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (64, 48), (200 * place, 20 * number, 99)).save(folder / f"{number}.png")
    laptop.paste(f"rsync -a {folder.parent} pi@{board.name}:embedded-devices/")
    assert laptop.changes("fleet/setup.yml", *of_fleet) == [0]
    laptop.changes("fleet/start.yml", *of_fleet)
    assert_rounds(laptop.serve("--rounds", 1, "--min_num_clients", 1), "1 results and 0 failures")
    laptop.changes("fleet/stop.yml", *of_fleet)
    found = board.ssh("cd embedded-devices/photos && ls && ls */*.png").split()
    assert found[:3] == ["classifier.npz", "cup", "spoon"] and len(found) == 3 + 20


def test_photos_that_are_taken_in_a_browser(boards, laptop):
    """By a camera that is a folder of pictures."""
    board = boards[1]
    inventory = laptop.processes.project / "fleet/teach.yml"
    flags = {"client_flags": "--photos taken --threads 1", "teach_flags": "--camera camera --port 8001"}
    write_inventory(inventory, {board.name: {"cid": 0}}, framework="onnx", teach=True, **flags)
    of_fleet = ("--inventory", str(inventory))

    def states() -> list[str]:
        return board.ssh("systemctl is-active flower-client@fleet teach-fleet || true").split()

    def ask(url: str, method: str = "GET") -> tuple[str, str]:
        """The status and the body of the answer that the laptop gets."""
        words = ("--silent", "--max-time", "20", "--write-out", " %{http_code}", "--request", method, url)
        body, _, status = run(*boards.on_laptop("curl", *words)).rpartition(" ")
        return status, body

    laptop.changes("fleet/setup.yml", *of_fleet)
    assert laptop.changes("fleet/setup.yml", *of_fleet) == [0]
    board.ssh("cd embedded-devices && .venv/bin/python -c 'import apt, cv2'")  # of the system, and of its own
    board.ssh("mkdir embedded-devices/camera")
    picture = laptop.processes.folder / "seen.png"
    Image.new("RGB", (64, 48), (200, 20, 99)).save(picture)
    laptop.paste(f"rsync -a {picture} pi@{board.name}:embedded-devices/camera/")
    told = laptop.play("fleet/start.yml", *of_fleet).output
    page, secret = re.search(rf"msg: (http://{board.name}:8001)/\?secret=([\w-]+)", told).groups()
    assert states() == ["active", "active"]
    board.ssh("systemd-analyze verify /etc/systemd/system/teach-fleet.service")
    assert ask(page)[0] == ask(f"{page}/state?secret=guess")[0] == "403"
    assert ask(f"{page}/?secret={secret}")[0] == "200"
    for name in ("cup", "spoon"):
        assert ask(f"{page}/classes?name={name}&secret={secret}", "POST")[0] == "200"
    deadline = time.monotonic() + PROMPTLY
    while ask(f"{page}/photos?class=cup&secret={secret}", "POST")[0] != "200":  # the camera is starting
        assert time.monotonic() < deadline
    assert laptop.changes("fleet/start.yml", *of_fleet) == [0]

    line = change_code(laptop)
    pid = board.ssh("systemctl show --property=MainPID --value teach-fleet")
    assert laptop.changes("fleet/setup.yml", *of_fleet) == [2]
    assert board.ssh("tail -n 1 embedded-devices/client_tf.py") == line
    assert board.ssh("systemctl show --property=MainPID --value teach-fleet") != pid
    told = laptop.play("fleet/start.yml", *of_fleet).output
    assert f"msg: {page}/?secret={secret}" in told  # as before
    assert '"name":"cup","photos":1' in ask(f"{page}/state?secret={secret}")[1]
    assert_rounds(laptop.serve("--rounds", 1, "--min_num_clients", 1), "1 results and 0 failures")
    assert '"round":1' in ask(f"{page}/state?secret={secret}")[1]

    shown = laptop.play("fleet/status.yml", *of_fleet, "-e", "lines=9").output
    assert re.search(r"@fleet is act.* since .*- teach-fleet is active since .*not encrypted", shown, re.S)
    assert laptop.changes("fleet/start.yml", *of_fleet, "-e", "teach=false") == [1]
    assert states()[1] == "inactive"
    laptop.changes("fleet/start.yml", *of_fleet)
    laptop.changes("fleet/stop.yml", *of_fleet)
    assert states() == ["inactive", "inactive"]
    enabled = board.ssh("systemctl is-enabled flower-client@fleet teach-fleet || true").split()
    assert enabled == ["disabled", "disabled"]


DOCKER = """#!/bin/sh
echo "$*" >> /tmp/asked
case "$*" in
    info*) echo /docker ;;
    image*) test -e /tmp/image ;;
    build*) touch /tmp/image ;;
    run*) echo "$4" > /tmp/label ;;
    ps*=*=*) grep -qs "${4#label=}" /tmp/label && echo 1234; true ;;
    logs*) echo "no server at 192.168.1.10:8080 yet" ;;
esac
"""


def test_a_jetson(boards, laptop, fleet):
    """With a stand-in for docker that writes down what it is asked."""
    board = boards[1]
    board.ssh(f"sudo tee /usr/local/bin/docker << 'end' && sudo chmod +x /usr/local/bin/docker\n{DOCKER}end\n")
    board.ssh("echo '# R35 (release), REVISION: 4.1, GCID: 1' | sudo tee /etc/nv_tegra_release")
    inventory = laptop.processes.project / "fleet/jetsons.yml"
    write_inventory(inventory, {}, {"board-2": {"cid": 7}}, framework="tf", server_address="192.168.1.10:8080")
    board.ssh("sudo mkdir /docker && sudo mount -t tmpfs -o size=64m docker /docker")
    small = laptop.play("--inventory", str(inventory), "fleet/setup.yml")
    assert small.exit_code() == 2 and "Action failed: 64 MB are free, but 15000 MB are needed" in small.output
    board.ssh("sudo umount /docker")
    for playbook in ("setup", "start", "start", "status", "stop"):
        process = laptop.play("--inventory", str(inventory), f"fleet/{playbook}.yml")
        assert process.exit_code() == 0, process.output
    asked = board.ssh("cat /tmp/asked").splitlines()
    folder = "/home/pi/embedded-devices"
    (build,) = [line for line in asked if line.startswith("build")]
    assert build.endswith(f"--tag flower_client:tf {folder}/base_images/tensorflow")
    (start,) = [line for line in asked if line.startswith("run")]  # once, though it was asked for twice
    assert re.sub("flower_client=[0-9a-f]+ ", "", start) == (
        "run --detach --label --restart unless-stopped --name flower_client_fleet --hostname board-2 --runtime nvidia "
        f"--volume {folder}:/client flower_client:tf "
        "python client_tf.py --server_address=192.168.1.10:8080 --num_clients 50 --cid 7 --mnist"
    )
    assert asked[-1] == "rm --force flower_client_fleet"

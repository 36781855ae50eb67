"""Boot Debian systems that stand in for Raspberry Pis: each with systemd, sshd, a disk and an address of its own.

By hand, to try things on boards that one does not have, until Ctrl-C:

    sudo .venv/bin/python tests/virtual_boards.py 4

They are containers of systemd-nspawn, in a network namespace that stands for the network at home: the laptop has the
address 192.168.1.10 there, board-1 has 192.168.1.101 and fd00::101, and no other machine is in reach. So the laptop
offers them what they would get from the internet: Debian packages for apt, and for pip those that REQUIREMENTS name.

Needs root on Debian, debootstrap, dpkg-dev, iproute2, openssh-client, rsync, systemd-container, and 1 GB in the
folder CACHE, which may be deleted at any time.
The boards have this machine's processor, kernel, memory and clock: they show nothing about speed or memory.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

from processes import LOOK_EVERY, ROOT, Process

CACHE = Path.home() / ".cache/virtual_boards"
LAPTOP = "192.168.1.10"
REQUIREMENTS = [ROOT / f"requirements_{name}.txt" for name in ("tf", "onnx", "teach")]
PORT = 8000  # where the laptop offers packages
DISK = "20G"  # of each board; takes as much space as there is in it
BOOT_SECONDS = 120  # from power to ssh at the latest
END_SECONDS = 60  # until the processes of a board that was killed have ended
PROGRAMS = ("debootstrap", "dpkg-scanpackages", "ip", "mkfs.ext4", "rsync", "ssh", "systemd-nspawn", "unshare")

CONTROL_GROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = [path for name in ("unified", "systemd") if (path := CONTROL_GROUPS / name).exists()] or [CONTROL_GROUPS]

# What Raspberry Pi OS Lite has, as far as it matters here; and what the README has people install.
INCLUDED = "systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,sudo,iproute2"
OFFERED = "python3-venv rsync tmux"
MAKE_BASE = f"""
debootstrap --variant=minbase --include={INCLUDED} bookworm base
chroot base apt-get clean
chroot base apt-get install --yes --download-only {OFFERED}
mkdir -p packages/debian
mv base/var/cache/apt/archives/*.deb packages/debian
(cd packages/debian && dpkg-scanpackages --multiversion . > Packages)
echo "deb [trusted=yes] http://{LAPTOP}:{PORT}/debian ./" > base/etc/apt/sources.list
printf "[global]\\nno-index = true\\nfind-links = http://{LAPTOP}:{PORT}/python\\ntrusted-host = {LAPTOP}\\n" \
    > base/etc/pip.conf
chroot base useradd --create-home --shell /bin/bash --groups adm,sudo pi
echo "pi ALL=(ALL) NOPASSWD: ALL" > base/etc/sudoers.d/pi
echo "AuthorizedKeysFile /etc/ssh/laptop.pub" > base/etc/ssh/sshd_config.d/laptop.conf
chroot base systemctl enable systemd-networkd ssh
rm -r base/etc/hostname base/etc/resolv.conf base/var/lib/apt/lists/*
: > base/etc/machine-id
"""

# In namespaces of the board's own, which take all processes and mounts with them when they end.
BOOT = """
mount -o loop disk.img disk
mkdir -p disk/changes disk/work
mount -t overlay overlay -o "lowerdir=$0,upperdir=$PWD/disk/changes,workdir=$PWD/disk/work" root
mount -t tmpfs tmpfs /run
for group in $CONTROL_GROUPS; do
    echo 0 > "$group/cgroup.procs"
done
code=133  # that the system wants to be started again
while [ $code = 133 ]; do
    code=0
    "$@" || code=$?
done
"""

SSH_CONFIG = """
IdentityFile "{key}"
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
BatchMode yes
ConnectTimeout 5
ServerAliveInterval 5
"""


def missing() -> str:
    """Return why boards cannot boot here; nothing if they can."""
    if os.geteuid() != 0:
        return "needs root"
    return ", ".join(f"there is no {program}" for program in PROGRAMS if not shutil.which(program))


def run(*command: object, timeout: float = 60, **arguments: Any) -> str:
    """Return what a command prints; raise AssertionError if it fails."""
    result = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **arguments
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"
    return result.stdout


@contextlib.contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """Give a folder to fill, which gets the name `folder` once that is done; None if there is one of that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        making = folder.with_name("unfinished")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        yield making
        making.rename(folder)


def make_base(cache: Path) -> Path:
    """Return the folder with the boards' common `base` and `packages`; made if it is not there, in about a minute."""
    recipe = hashlib.sha256(MAKE_BASE.encode()).hexdigest()[:12]
    with made_once(cache / f"debian-{recipe}") as folder:
        if folder:
            run("bash", "-euxc", MAKE_BASE, cwd=folder, timeout=1200)
    return cache / f"debian-{recipe}"


def fetch_python_packages(cache: Path) -> Path:
    """Return a folder with the packages that REQUIREMENTS ask for."""
    wanted = "".join(path.read_text() for path in REQUIREMENTS)
    name = f"python-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    with made_once(cache / name) as folder:
        if folder:
            options = [f"--requirement={path}" for path in REQUIREMENTS]
            options += ["--python-version", "3.11", "--only-binary", ":all:", "--dest", str(folder)]
            run(sys.executable, "-m", "pip", "download", *options, timeout=1800)
    return cache / name


def remove(laptop: str) -> None:
    """Remove the network of that name and its boards' control groups, once the last processes there have ended."""
    subprocess.run(["ip", "netns", "delete", laptop], stderr=subprocess.DEVNULL, timeout=30)
    shutil.rmtree(f"/etc/netns/{laptop}", ignore_errors=True)
    for hierarchy in HIERARCHIES:
        for group in hierarchy.glob(f"{laptop}-*"):
            deadline = time.monotonic() + END_SECONDS
            while subprocess.run(
                ["find", group, "-depth", "-type", "d", "-delete"], stderr=subprocess.DEVNULL
            ).returncode:
                assert time.monotonic() < deadline, f"there are still processes in {group}"
                time.sleep(0.2)


class Board:
    """A board that is on from the start; all waits have a deadline."""

    def __init__(self, boards: VirtualBoards, number: int) -> None:
        self.boards = boards
        self.name = f"board-{number}"
        self.address = f"192.168.1.{100 + number}"
        self.ipv6 = f"fd00::{100 + number}"
        self.folder = boards.folder / self.name
        self.disk = self.folder / "disk.img"
        for name in ("disk", "root"):
            (self.folder / name).mkdir(parents=True)
        run("truncate", "--size", DISK, self.disk)
        run("mkfs.ext4", "-q", "-m", "0", self.disk)
        network = (
            f"[Match]\nName=host0\n[Network]\nAddress={self.address}/24\nAddress={self.ipv6}/64\nGateway={LAPTOP}\n"
        )
        (self.folder / "host0.network").write_text(network)
        self.process: Process | None = None

    def power_on(self) -> None:
        """Boot, and wait until it answers."""
        self.start()
        self.wait_until_up()

    def start(self) -> None:
        """Boot."""
        given = {
            self.folder / "host0.network": "/etc/systemd/network/10-host0.network",
            self.boards.folder / "hosts": "/etc/hosts",
            self.boards.ssh_key.with_suffix(".pub"): "/etc/ssh/laptop.pub",
        }
        command = [
            *("setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.boards.laptop}"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-euc", BOOT, str(self.boards.base)),
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", f"--machine={self.name}"),
            *(f"--directory={self.folder / 'root'}", "--network-bridge=home", "--resolv-conf=off", "--link-journal=no"),
            *(f"--bind-ro={source}:{target}" for source, target in given.items()),
        ]
        groups = [path / f"{self.boards.laptop}-{self.name}" for path in HIERARCHIES]
        for group in groups:
            group.mkdir(exist_ok=True)
        log = self.folder / "console.log"
        environment = {"CONTROL_GROUPS": " ".join(map(str, groups))}
        self.process = Process(  # which a Ctrl-C on this terminal does not reach
            command, log, cwd=self.folder, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )

    def wait_until_up(self, after: str = "") -> None:
        """Wait until it answers over ssh, in another boot than `after`, and all its services have started."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                if self.boot_id() != after:
                    self.ssh("systemctl is-system-running --wait || true")
                    return
            console = self.process.output if self.process else ""
            assert time.monotonic() < deadline, f"{self.name} does not answer:\n{console}"
            time.sleep(LOOK_EVERY)

    def boot_id(self) -> str:
        """Return what is another one after each start."""
        return self.ssh("cat /proc/sys/kernel/random/boot_id", timeout=10)

    def ssh(self, command: str, timeout: float = 300) -> str:
        """Run a command as the user pi and return its output; raise AssertionError if it fails."""
        return run(*self.boards.on_laptop("ssh", f"pi@{self.name}", command), timeout=timeout)

    def power_off(self) -> None:
        """Cut the power: nothing on the board learns of it."""
        if self.process:
            unshare = self.process.popen
            if unshare.poll() is None:  # it ends when its child has, and all in the child's namespaces
                children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
                for pid in map(int, children or [unshare.pid]):
                    os.kill(pid, signal.SIGKILL)
                unshare.wait(30)
            self.process = None

    def reboot(self) -> None:
        """Restart in the orderly way, and wait until it answers."""
        before = self.boot_id()
        with contextlib.suppress(AssertionError):  # it may end before it has answered
            self.ssh("sudo reboot")
        self.wait_until_up(after=before)

    def connect(self, connected: bool = True) -> None:
        """Plug its network cable in."""
        state = "up" if connected else "down"
        run("ip", "-n", self.boards.laptop, "link", "set", f"vb-{self.name}", state)

    def disconnect(self) -> None:
        """Pull its network cable out."""
        self.connect(False)

    def fill_disk(self) -> None:
        """Leave no space on its disk."""
        self.ssh("sudo fallocate --length $(($(df --output=avail --block-size=1 / | tail -1) - 65536)) /full")


class VirtualBoards:
    """Boards that have booted, and the laptop beside them; nothing of them is left when the block ends.

    folder: takes the boards' disks, and is there already. cache: is kept for the next time.
    """

    def __init__(self, folder: Path, cache: Path = CACHE, number: int = 4) -> None:
        self.folder = folder
        self.cache = cache
        self.number = number
        self.laptop = f"virtual-laptop-{os.getpid()}"
        self.ssh_key = folder / "key"
        self.ssh_options = ["-F", str(folder / "ssh_config")]  # not needed on the laptop, where they are the default

    def __enter__(self) -> VirtualBoards:
        made = make_base(self.cache)
        self.base = made / "base"
        with contextlib.ExitStack() as stack:
            stack.callback(remove, self.laptop)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh_key)
            self._make_network()
            offered = self.folder / "packages"
            offered.mkdir()
            (offered / "debian").symlink_to(made / "packages/debian")
            (offered / "python").symlink_to(fetch_python_packages(self.cache))
            command = self.on_laptop(sys.executable, "-m", "http.server", "--directory", str(offered), str(PORT))
            packages = Process(["setpriv", "--pdeathsig", "KILL", *command], self.folder / "packages.log").popen
            stack.callback(packages.wait, 30)
            stack.callback(packages.kill)
            self.boards = [Board(self, number) for number in range(1, self.number + 1)]
            for board in self.boards:
                stack.callback(board.disk.unlink)
                stack.callback(board.power_off)
                board.start()
            for board in self.boards:
                board.wait_until_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, index: int) -> Board:
        return self.boards[index]

    def __iter__(self) -> Iterator[Board]:
        return iter(self.boards)

    def on_laptop(self, *command: str) -> list[str]:
        """Return a command that runs `command` on the laptop, where the boards' names are known."""
        return ["ip", "netns", "exec", self.laptop, *command]

    def _make_network(self) -> None:
        hosts = f"127.0.0.1 localhost\n{LAPTOP} laptop\n"
        hosts += "".join(f"192.168.1.{100 + n} board-{n} board-{n}.local\n" for n in range(1, self.number + 1))
        (self.folder / "hosts").write_text(hosts)
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(key=self.ssh_key))
        own = Path("/etc/netns", self.laptop)  # ip netns exec puts what is there in the place of what is in /etc
        (own / "ssh").mkdir(parents=True)
        shutil.copy(self.folder / "hosts", own)
        shutil.copy(self.folder / "ssh_config", own / "ssh")
        run("ip", "netns", "add", self.laptop)
        ip = ("ip", "-n", self.laptop)
        run(*ip, "link", "add", "home", "type", "bridge")
        run(*ip, "address", "add", f"{LAPTOP}/24", "dev", "home")
        run(*ip, "address", "add", "fd00::10/64", "dev", "home")
        run(*ip, "link", "set", "lo", "up")
        run(*ip, "link", "set", "home", "up")


def try_by_hand(number: int) -> None:
    """Boot boards, print how to log in to them, and wait for Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder, VirtualBoards(Path(folder), number=number) as boards:
        for board in boards:
            print(*boards.on_laptop("ssh", f"pi@{board.name}"))
        signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("number", type=int, help="how many")
    arguments = parser.parse_args()
    if missing():
        parser.error(missing())
    with contextlib.suppress(KeyboardInterrupt):
        try_by_hand(arguments.number)

"""systemd/flower-client@.service, under a real systemd: a user's instance of it, in namespaces of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT

UNIT = ROOT / "systemd/flower-client@.service"
SYSTEMD = "/usr/lib/systemd/systemd"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(SYSTEMD).exists() or not shutil.which("unshare") or os.geteuid() != 0,
        reason="needs systemd, unshare and root",
    ),
]


@pytest.fixture
def systemctl(start, tmp_path):
    """Return a function that calls `systemctl --user` for a systemd that knows the unit; returns what it prints."""
    runtime, home = "/run/user/0", tmp_path / "home"
    (home / ".config/systemd/user").mkdir(parents=True)
    boot = f"""
        mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system {runtime}
        export XDG_RUNTIME_DIR={runtime} HOME={home}
        {SYSTEMD} --user --log-target=console  # not as process 1, which runs the whole system
    """
    namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    unshare = start(namespaces[0], *namespaces[1:], "sh", "-c", boot, python="unshare")

    def systemctl(*words: str) -> str:
        pid = Path(f"/proc/{unshare.popen.pid}/task/{unshare.popen.pid}/children").read_text().strip()
        enter = ("nsenter", "--target", pid, "--mount", "--pid", "env", f"XDG_RUNTIME_DIR={runtime}")
        command = [*enter, "systemctl", "--user", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    systemctl.units = home / ".config/systemd/user"
    deadline = time.monotonic() + 30
    while systemctl("is-system-running") not in ("running", "degraded"):
        assert time.monotonic() < deadline, unshare.output
        time.sleep(0.2)
    return systemctl


def test_unit_is_valid(tmp_path):
    """With the folder edited, as the file says to do."""
    unit = tmp_path / "flower-client@0.service"
    unit.write_text(UNIT.read_text().replace("/home/pi/embedded-devices/.venv/bin/python", sys.executable))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert "flower-client" not in result.stderr


def test_the_client_comes_back(systemctl, start, address, mnist, tmp_path):
    """After a run and after a crash, but not after wrong flags; a stop is no failure."""
    flags = f"--mnist --num_clients 2 --data_dir {mnist}"
    unit = (
        UNIT.read_text()
        .replace("User=pi\n", "")  # a user's systemd has no choice
        .replace("/home/pi/embedded-devices/.venv/bin/python", sys.executable)
        .replace("/home/pi/embedded-devices", str(ROOT))
        .replace("192.168.1.10:8080", f"{address} {flags}")
    )
    (systemctl.units / UNIT.name).write_text(unit)
    systemctl("daemon-reload")

    def run_one_round(number: int) -> None:
        arguments = ("--rounds", 1, "--min_num_clients", 1, "--results_dir", tmp_path / f"results-{number}")
        server = start("server.py", "--server_address", address, *arguments)
        assert server.exit_code(timeout=120) == 0, server.output
        assert "round 1: 1 results and 0 failures" in server.output

    systemctl("start", "flower-client@1")
    run_one_round(1)
    run_one_round(2)  # by a client that was started anew
    assert int(systemctl("show", "--value", "--property=NRestarts", "flower-client@1")) >= 1
    systemctl("kill", "--signal=SIGKILL", "flower-client@1")
    run_one_round(3)
    systemctl("stop", "flower-client@1")
    assert systemctl("is-active", "flower-client@1") == "inactive"

    systemctl("start", "flower-client@2")  # there are only partitions 0 and 1
    deadline = time.monotonic() + 60
    while systemctl("is-active", "flower-client@2") != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(12)  # longer than RestartSec
    assert systemctl("show", "--value", "--property=NRestarts", "flower-client@2") == "0"

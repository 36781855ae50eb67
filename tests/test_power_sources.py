"""Real clients on machines with made-up sensors: what they tell of the energy of a fit, and what of broken sensors."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from federation.results.tables import read_table

import pytest
from conftest import Variant
from processes import PROMPTLY, ROOT, free_address

sys.path.append(str(ROOT / "tests/unit"))
from plugs import ANSWERS, serving
from test_power import PMIC, jetpack_4, jetpack_5, write

WATTS = 5.0
UNDER_VOLTAGE = "echo throttled=0x50005"
RAPL, RANGE = "class/powercap/intel-rapl:0", 6_500_000  # microjoules: it wraps around within two samples
MACHINES = {  # what sysfs has, what vcgencmd does
    "Nano": (jetpack_4({"POM_5V_IN": 5000}), ""),
    "Orin": (jetpack_5({"VDD_IN": (5000, 1000)}), ""),
    "Pi 5": ({}, f'[ "$1" = pmic_read_adc ] || {UNDER_VOLTAGE}\n[ "$1" = get_throttled ] || cat <<END\n{PMIC}END'),
    "Pi 4": ({}, '[ "$1" = get_throttled ] && echo throttled=0x0'),
    "laptop": ({f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 0, f"{RAPL}/max_energy_range_uj": RANGE}, ""),
    "broken": (jetpack_4({"POM_5V_IN": ""}), "exec sleep 60"),
}
EXPECTED = {  # watts, source, throttled
    "Nano": ("5.0", "INA3221 POM_5V_IN", ""),
    "Orin": ("5.0", "INA3221 VDD_IN", ""),
    "Pi 5": ("2.844", "PMIC", "under-voltage and throttled"),
    "Pi 4": ("", "", "no"),
    "broken": ("", "", ""),
}


def made_up(folder: Path, files: dict, vcgencmd: str) -> tuple[str, ...]:
    """Make such a machine; return the words that start a command there."""
    write(folder / "sys", files)
    for name in ("bin", "sys/bus", "sys/class"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if vcgencmd:
        (folder / "bin/vcgencmd").write_text(f"#!/bin/sh\n{vcgencmd}\n")
        (folder / "bin/vcgencmd").chmod(0o755)
    mounts = " && ".join(f"mount --bind '{folder}/sys/{name}' /sys/{name}" for name in ("bus", "class"))
    return "--mount", "sh", "-c", f'{mounts} && PATH="{folder}/bin:$PATH" exec "$0" "$@"', sys.executable


def count(counter: Path, over: threading.Event) -> None:
    """Let a counter of RAPL go on, at WATTS."""
    started = time.monotonic()
    while not over.wait(0.02):
        new = counter.with_name("new")
        new.write_text(f"{int((time.monotonic() - started) * WATTS * 1e6) % RANGE}")
        new.replace(counter)


pytestmark = pytest.mark.slow


@pytest.fixture
def variant() -> Variant:
    """One of them is enough here."""
    return Variant()


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="needs root and unshare")
def test_the_energy_of_a_fit_on_all_kinds_of_machines(start, start_server, address, mnist, tmp_path, results):
    names = [*MACHINES, *ANSWERS]
    server = start_server("--rounds", 2, "--min_num_clients", len(names))
    clients, over = [], threading.Event()
    with ExitStack() as stack:
        for cid, name in enumerate(names):
            words = made_up(tmp_path / name, *MACHINES.get(name, ({}, "")))
            flags = ["--cid", cid, "--num_clients", 20, "--mnist", "--data_dir", mnist, "--server_address", address]
            if name in ANSWERS:
                flags += ["--meter", f"http://{stack.enter_context(serving(name, WATTS)).address}"]
            clients.append(start(*words, "client_pytorch.py", *flags, "--threads", 1, python="unshare", cwd=ROOT))
        threading.Thread(target=count, args=(tmp_path / "laptop/sys" / RAPL / "energy_uj", over)).start()
        stack.callback(over.set)
        for client in (server, *clients):
            assert client.exit_code() == 0, client.output
    assert server.output.count(f": {len(names)} results and 0 failures") == 2, server.output
    rows = read_table(results / "clients.csv")
    assert len(rows) == 2 * len(names)
    for row in rows:
        name = names[int(row["cid"])]
        told = row["power_w"], row["power_source"], row["throttled"]
        if name == "laptop":
            assert float(row["power_w"]) == pytest.approx(WATTS, rel=0.2) and told[1:] == ("RAPL", "")
        else:
            assert told == EXPECTED.get(name, ("5.0", "plug", "")), name
        if row["power_w"]:
            assert float(row["energy_j"]) == pytest.approx(float(row["power_w"]) * float(row["seconds"]), rel=0.01)
        else:
            assert row["energy_j"] == ""
    energy = re.findall(r"^round \d: fit on .* s, \d+\.\d J at 5\.0 W$", clients[0].output, re.M)
    assert len(energy) == 2 and " J at " not in clients[names.index("broken")].output


def test_a_client_with_the_address_of_something_else_ends(start):
    with serving() as server:
        server.body = b"<html>a router</html>"
        client = start("client_pytorch.py", "--cid", 0, "--meter", f"http://{server.address}")
        assert client.exit_code(PROMPTLY) == 2
    expected = f"argument --meter: http://{server.address} is of no use: no Shelly or Tasmota that measures"
    assert expected in client.output and len(client.output.splitlines()) == 1


def test_a_plug_that_is_not_there_yet_is_told(start_server, start, address, mnist, results):
    """And the run goes on without it."""
    start_server("--rounds", 1, "--min_num_clients", 1)
    plug = f"http://{free_address()}"
    flags = "--cid", 0, "--mnist", "--num_clients", 20, "--data_dir", mnist, "--server_address", address
    client = start("client_pytorch.py", *flags, "--threads", 1, "--meter", plug)
    assert client.exit_code() == 0, client.output
    assert f"the plug at {plug} does not answer (Connection refused): no power is told until it does" in client.output
    (row,) = read_table(results / "clients.csv")
    assert (row["power_w"], row["power_source"]) == ("", "") and float(row["seconds"]) > 0

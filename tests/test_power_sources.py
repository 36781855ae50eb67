"""Real clients on machines with made-up sensors: what they tell of the energy of a fit, and what of broken sensors."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from federation.results.tables import read_table

import pytest
from conftest import Variant
from processes import ROOT, free_address

sys.path.append(str(ROOT / "tests/unit"))
from plugs import ANSWERS, serving
from test_power import PMIC, jetson, write

WATTS = 5.0
UNDER_VOLTAGE = "echo throttled=0x50005"
MACHINES = {  # what sysfs has, what vcgencmd does
    "Orin": (jetson({"VDD_IN": (5000, 1000)}), ""),
    "Pi 5": ({}, f'[ "$1" = pmic_read_adc ] || {UNDER_VOLTAGE}\n[ "$1" = get_throttled ] || cat <<END\n{PMIC}END'),
    "Pi 4": ({}, '[ "$1" = get_throttled ] && echo throttled=0x0'),
    "broken": (jetson({"VDD_IN": (5000, "")}), "exec sleep 60"),
}
EXPECTED = {  # watts, source, throttled
    "Orin": ("5.0", "INA3221 VDD_IN", ""),
    "Pi 5": ("2.844", "PMIC", "under-voltage and throttled"),
    "Pi 4": ("", "", "no"),
    "broken": ("", "", ""),
    "no plug yet": ("", "", ""),
}
pytestmark = pytest.mark.slow


def made_up(folder: Path, files: dict, vcgencmd: str) -> tuple[str, ...]:
    """Make such a machine; return the words that start a command there."""
    write(folder / "sys", files)
    for name in ("bin", "sys/bus"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if vcgencmd:
        (folder / "bin/vcgencmd").write_text(f"#!/bin/sh\n{vcgencmd}\n")
        (folder / "bin/vcgencmd").chmod(0o755)
    mount = f"mount --bind '{folder}/sys/bus' /sys/bus"
    return "--mount", "sh", "-c", f'{mount} && PATH="{folder}/bin:$PATH" exec "$0" "$@"', sys.executable


@pytest.fixture
def variant() -> Variant:
    """One of them is enough here."""
    return Variant()


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="needs root and unshare")
def test_the_energy_of_a_fit_on_all_kinds_of_machines(start, start_server, address, mnist, tmp_path, results):
    names = [*MACHINES, *ANSWERS, "no plug yet"]
    server = start_server("--rounds", 2, "--min_num_clients", len(names))
    clients = []
    with ExitStack() as stack:
        plugs = {name: stack.enter_context(serving(name, WATTS)).address for name in ANSWERS}
        plugs["no plug yet"] = free_address()
        for cid, name in enumerate(names):
            words = made_up(tmp_path / name, *MACHINES.get(name, ({}, "")))
            flags = ["--cid", cid, "--num_clients", 20, "--mnist", "--data_dir", mnist, "--server_address", address]
            flags += ["--meter", f"http://{plugs[name]}"] if name in plugs else []
            clients.append(start(*words, "client_pytorch.py", *flags, "--threads", 1, python="unshare", cwd=ROOT))
        for client in (server, *clients):
            assert client.exit_code() == 0, client.output
    assert server.output.count(f": {len(names)} results and 0 failures") == 2, server.output
    rows = read_table(results / "clients.csv")
    assert len(rows) == 2 * len(names)
    for row in rows:
        name = names[int(row["cid"])]
        assert (row["power_w"], row["power_source"], row["throttled"]) == EXPECTED.get(name, ("5.0", "plug", "")), name
        if row["power_w"]:
            assert float(row["energy_j"]) == pytest.approx(float(row["power_w"]) * float(row["seconds"]), rel=0.01)
        else:
            assert row["energy_j"] == "" and float(row["seconds"]) > 0
    energy = re.findall(r"^round \d: fit on .* s, \d+\.\d J at 5\.0 W$", clients[0].output, re.M)
    assert len(energy) == 2 and " J at " not in clients[names.index("broken")].output
    assert f"the plug at http://{plugs['no plug yet']} tells no power (Connection refused)" in clients[-1].output

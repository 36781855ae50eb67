"""Real clients with made-up sensors: what they tell of the energy of a fit, and what of a broken sensor."""

from __future__ import annotations

import os
import re
import sys

from federation.results.tables import read_table

import pytest
from processes import ROOT, free_address

sys.path.append(str(ROOT / "tests/unit"))
from plugs import serving
from test_power import PMIC


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_the_energy_of_a_fit(start, start_server, address, mnist, tmp_path, results):
    """Of a Raspberry Pi 5, of a board with a plug, and of one whose plug is not there yet."""
    program = f'[ "$1" = pmic_read_adc ] || echo throttled=0x5\n[ "$1" = get_throttled ] || cat <<END\n{PMIC}END'
    (tmp_path / "vcgencmd").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "vcgencmd").chmod(0o755)
    server, missing = start_server("--rounds", 1, "--min_num_clients", 3), free_address()
    data = "--mnist", "--num_clients", 20, "--data_dir", mnist, "--server_address", address, "--threads", 1
    with serving("Tasmota", 5) as plug:
        clients = [
            start("client_pytorch.py", "--cid", 0, *data, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}),
            start("client_pytorch.py", "--cid", 1, *data, "--meter", f"http://{plug.address}"),
            start("client_pytorch.py", "--cid", 2, *data, "--meter", f"http://{missing}"),
        ]
        for client in (server, *clients):
            assert client.exit_code() == 0, client.output
    rows = read_table(results / "clients.csv")
    assert [(row["power_w"], row["power_source"], row["throttled"]) for row in rows] == [
        ("2.844", "PMIC", "under-voltage and throttled"), ("5.0", "plug", ""), ("", "", ""),
    ]  # fmt: skip
    assert float(rows[1]["energy_j"]) == pytest.approx(5 * float(rows[1]["seconds"]), rel=0.01)
    assert re.search(r"^round 1: fit on .* s, \d+\.\d J at 5\.0 W$", clients[1].output, re.M)
    assert f"cannot read the plug at http://{missing} (Connection refused): trying again" in clients[2].output

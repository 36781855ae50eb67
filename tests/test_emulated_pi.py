"""An emulated Raspberry Pi takes part in a federation; see emulated_pi.sh."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from processes import ROOT


@pytest.mark.slow
def test_emulated_pi(tmp_path):
    command = [ROOT / "tests/emulated_pi.sh", tmp_path, sys.executable]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2400)
    if result.returncode == 77:
        pytest.skip(result.stdout.splitlines()[-1])
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("round 1: 1 results and 0 failures") == 6  # three clients on two processors
    assert re.search(r'it says .*"camera":"".*"fps":(0\.[1-9]|[1-9])', result.stdout)
    assert "it dies with an illegal instruction, as expected" in result.stdout

"""The requirement files resolve, from wheels, for the devices they are meant for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import FRAMEWORKS, ROOT

BOARDS = [("aarch64-manylinux_2_28", python) for python in ("3.9", "3.10", "3.11", "3.12", "3.13")]
LAPTOPS = [("x86_64-manylinux_2_28", "3.9"), ("x86_64-manylinux_2_28", "3.13")]


@pytest.mark.parametrize(("platform", "python"), BOARDS + LAPTOPS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_requirements_resolve(framework, platform, python):
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--python-version", python, "--python-platform", platform, f"requirements_{framework}.txt",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    versions = dict(line.split("==") for line in result.stdout.splitlines() if "==" in line)
    assert versions["torch" if framework == "pytorch" else "tensorflow"]
    if platform.startswith("aarch64"):
        assert not [name for name in versions if "nvidia" in name or "cuda" in name]

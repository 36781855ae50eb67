"""The requirement files resolve, from wheels, for the devices and images they are meant for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import FRAMEWORKS
from processes import ROOT

BOARD, LAPTOP = "aarch64-manylinux_2_28", "x86_64-manylinux_2_28"
slow = pytest.mark.slow  # each resolution asks the package index about 200 packages


@pytest.mark.parametrize(
    ("platform", "python"),
    [
        (BOARD, "3.9"),
        (BOARD, "3.13"),
        pytest.param(BOARD, "3.10", marks=slow),
        pytest.param(BOARD, "3.11", marks=slow),
        pytest.param(BOARD, "3.12", marks=slow),
        pytest.param(LAPTOP, "3.9", marks=slow),
        pytest.param(LAPTOP, "3.13", marks=slow),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_requirements_resolve(framework, platform, python):
    versions = resolve(f"requirements_{framework}.txt", platform, python)
    assert versions["torch" if framework == "pytorch" else "tensorflow"]
    if platform.startswith("aarch64"):
        assert not [name for name in versions if "nvidia" in name or "cuda" in name]


# The Python, NumPy and, for TensorFlow, protobuf of NVIDIA's images, as far as known.
@pytest.mark.parametrize(
    ("framework", "python", "frozen"),
    [
        ("pytorch", "3.8", ["numpy==1.21.0"]),
        pytest.param("pytorch", "3.8", ["numpy==1.24.4"], marks=slow),
        pytest.param("pytorch", "3.10", ["numpy==1.26.4"], marks=slow),
        pytest.param("pytorch", "3.12", ["numpy==1.26.4"], marks=slow),
        ("tensorflow", "3.8", ["numpy==1.21.6", "protobuf==3.20.3"]),
        pytest.param("tensorflow", "3.8", ["numpy==1.21.6", "protobuf==3.19.6"], marks=slow),
        pytest.param("tensorflow", "3.10", ["numpy==1.26.4", "protobuf==3.20.3"], marks=slow),
    ],
)
def test_requirements_of_images_resolve(framework, python, frozen, tmp_path):
    (tmp_path / "frozen.txt").write_text("\n".join(frozen))
    file = f"base_images/{framework}/requirements.txt"
    versions = resolve(file, "aarch64-manylinux_2_31", python, "--constraint", tmp_path / "frozen.txt")
    pinned = [line.split(";")[0] for line in (ROOT / file).read_text().splitlines() if "==" in line]
    named = {line.split("==")[0] for line in pinned} | {line.split("==")[0] for line in frozen}
    assert set(versions) <= named, "the requirement file does not fix all that is installed"
    assert not named & {"torch", "torchvision", "tensorflow"}


def resolve(file: str, platform: str, python: str, *options) -> dict[str, str]:
    """Return the versions of all packages that would be installed, by name."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--python-version", python, "--python-platform", platform, file, *map(str, options),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return dict(line.split("==") for line in result.stdout.splitlines() if "==" in line)

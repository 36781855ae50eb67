"""The requirement files resolve, from wheels, for the devices and images they are meant for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import ROOT

PYTHONS = ["3.13", *(pytest.param(python, marks=pytest.mark.slow) for python in ("3.9", "3.10", "3.11", "3.12"))]
PACKAGES = {"pytorch": "torch", "tf": "tensorflow", "onnx": "onnxruntime"}
# The Python, NumPy and, for TensorFlow, protobuf of NVIDIA's images, as far as known.
IMAGES = [
    ("pytorch", "3.8", ["numpy==1.21.0"]),
    ("tensorflow", "3.8", ["numpy==1.21.6", "protobuf==3.20.3"]),
    pytest.param("pytorch", "3.12", ["numpy==1.26.4"], marks=pytest.mark.slow),
    pytest.param("tensorflow", "3.10", ["numpy==1.26.4", "protobuf==3.20.3"], marks=pytest.mark.slow),
]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("framework", "package"), [("pytorch", "torch"), ("tf", "tensorflow"), ("onnx", "onnxruntime")]
)
def test_requirements_resolve_on_a_board(framework, package, python):
    versions = resolve(f"requirements_{framework}.txt", "aarch64-manylinux_2_28", python)
    assert versions[package]
    assert not [name for name in versions if "nvidia" in name or "cuda" in name]


@pytest.mark.parametrize(("framework", "python", "frozen"), IMAGES)
def test_requirements_of_images_resolve(framework, python, frozen, tmp_path):
    (tmp_path / "frozen.txt").write_text("\n".join(frozen))
    file = f"base_images/{framework}/requirements.txt"
    versions = resolve(file, "aarch64-manylinux_2_31", python, "--constraint", tmp_path / "frozen.txt")
    pinned = [line for line in (ROOT / file).read_text().splitlines() if "==" in line]
    named = {line.split("==")[0] for line in (*pinned, *frozen)}
    assert set(versions) <= named, "the requirement file does not fix all that is installed"
    assert not named & {"torch", "torchvision", "tensorflow"}


def resolve(file: str, platform: str, python: str, *options) -> dict[str, str]:
    """The versions of all packages that would be installed, by name."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--python-version", python, "--python-platform", platform, file, *map(str, options),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return dict(line.split("==") for line in result.stdout.splitlines() if "==" in line)

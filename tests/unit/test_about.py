"""What a device tells about itself, on boards that are files in a folder."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from federation.client import about

import pytest


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Return a function that writes a file of the system; the device sees no others."""
    monkeypatch.setattr(about, "Path", lambda name: tmp_path / name.lstrip("/"))

    def write(name: str, content: str) -> None:
        path: Path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(errors="surrogateescape"))

    return write


def thermal_zone(board, number: int, kind: str, temperature: str) -> None:
    board(f"/sys/class/thermal/thermal_zone{number}/type", kind)
    board(f"/sys/class/thermal/thermal_zone{number}/temp", temperature)


@pytest.mark.parametrize(
    ("model", "told"), [("Raspberry Pi 4 Model B\0", "Raspberry Pi 4 Model B"), ("B\udcfcro\0", "B\ufffdro")]
)
def test_a_board_has_a_name(board, model, told):
    board("/proc/device-tree/model", model)
    assert about.describe() == f"{platform.node()} ({told})"


def test_a_laptop_is_told_by_its_system(board):
    assert about.describe() == f"{platform.node()} ({platform.system()} {platform.machine()})"


@pytest.mark.parametrize(
    "kind", ["cpu-thermal\n", "CPU-therm\n", "x86_pkg_temp\n", "soc-thermal\n", "bigcore0-thermal"]
)
def test_the_temperature_of_the_processor(board, kind):
    thermal_zone(board, 0, "gpu-thermal\n", "99000\n")
    thermal_zone(board, 1, kind, "61500\n")
    assert about.vital_signs()["temperature_c"] == 61.5


def test_the_hottest_zone_counts_and_those_that_are_switched_off_do_not(board):
    board("/sys/class/thermal/thermal_zone9/type", "cpu9")
    for number, temperature in enumerate(["41000", "72000", "switched off", "-256000"]):
        thermal_zone(board, number, f"cpu{number}", temperature)
    assert about.vital_signs()["temperature_c"] == 72.0


def test_no_temperature_where_there_is_none(board):
    thermal_zone(board, 0, "gpu-thermal", "99000")
    assert "temperature_c" not in about.vital_signs()


@pytest.mark.skipif(about.resource is None, reason="not on Windows")
def test_memory_in_megabytes(board, monkeypatch):
    assert 10 < about.vital_signs()["peak_memory_mb"] < 100_000
    monkeypatch.setattr(about.resource, "getrusage", lambda who: type("usage", (), {"ru_maxrss": 204_800}))
    monkeypatch.setattr(sys, "platform", "linux")
    assert about.vital_signs()["peak_memory_mb"] == 200.0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert about.vital_signs()["peak_memory_mb"] == 0.2


def test_no_memory_on_windows(board, monkeypatch):
    monkeypatch.setattr(about, "resource", None)
    assert about.vital_signs() == {}

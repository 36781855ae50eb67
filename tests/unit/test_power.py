"""What a fit costs: made-up files and vcgencmd, real HTTP servers, and what may be wrong with any of them."""

from __future__ import annotations

import argparse
import time

from federation.client import power
from federation.client.power import Meter, in_words, ina3221, pmic

import pytest
from plugs import ANSWERS, BAD_ANSWERS, serving
from processes import free_address

PMIC = """\
 3V7_WL_SW_A current(0)=0.10000000A
  VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V
"""  # in the layout that https://github.com/jfikar/RPi5-power shows


def write(folder, files: dict) -> None:
    """Write made-up files of sysfs."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def jetson(rails: dict, device: str = "1-0040", number: int = 3) -> dict:
    """Files of a Jetson's INA3221; rails in millivolts and milliamperes."""
    folder = f"bus/i2c/drivers/ina3221/{device}/hwmon/hwmon{number}"
    files = {f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": 99, f"{folder}/curr4_input": 99}
    for i, (name, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        files.update({f"{folder}/in{i}_label": name, f"{folder}/in{i}_input": millivolts})
        if milliamperes is not None:  # else the channel is off
            files[f"{folder}/curr{i}_input"] = milliamperes
    return files


JETSONS = {
    "Orin NX": (
        jetson({"VDD_IN": (5000, 1500), "VDD_CPU_GPU_CV": (5000, 300), "VDD_SOC": (5000, 200)}), "INA3221 VDD_IN", 7.5,
    ),
    "AGX Orin": (
        {
            **jetson({"VDD_GPU_SOC": (1000, 1), "VDD_CPU_CV": (1000, 2), "VIN_SYS_5V0": (5000, 800)}),
            **jetson({"NC": (1000, 9), "VDDQ_VDD2_1V8AO": (5000, 80), "off": (0, None)}, "1-0041", 4),
        },
        "INA3221 VDDQ_VDD2_1V8AO + VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0", 4.403,
    ),
}  # fmt: skip


@pytest.mark.parametrize("board", JETSONS)
def test_a_jetson(tmp_path, board):
    files, name, watts = JETSONS[board]
    write(tmp_path, files)
    source = ina3221(tmp_path)
    assert source.name == name and source.watts() == pytest.approx(watts)


@pytest.fixture
def vcgencmd(tmp_path):
    """Return a function that makes a program out of lines of shell; it returns its path."""

    def make(script: str) -> str:
        path = tmp_path / "bin/vcgencmd"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_pi_5(vcgencmd):
    program = vcgencmd(f'[ "$1" = pmic_read_adc ] || exit 1\ncat <<END\n{PMIC}END')
    source = pmic(program)
    assert source.name == "PMIC"
    assert source.watts() == pytest.approx(1.1451 * (0.1 * 3.7 + 2 * 0.8) + 0.5879)
    for other in ("echo 'error=1 error_msg=\"Command not registered\"'", "exit 255", "echo 'X_A current(7)=2.0A'"):
        assert pmic(vcgencmd(other)) is None


@pytest.mark.parametrize(
    ("throttled", "words"),
    [
        ([0x0, 0x0], "no"),
        ([0x50000, 0x50000], "no"),  # that was before the fit
        ([0x0, 0x5, 0x50000], "under-voltage and throttled"),
        ([0x0, 0x20000], "frequency capped"),  # between two readings
        ([0x10000, 0x3], "under-voltage and frequency capped"),
    ],
)
def test_throttling_in_words(throttled, words):
    assert in_words(throttled) == words


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_plug(kind, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(kind, 7.5) as server:
        assert power.plug(f"http://{server.address}/").watts() == 7.5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "url",
    ["", "192.168.1.20", "https://192.168.1.20", "http://", "http://a b", "http://a/b", "ftp://a"],
)
def test_what_is_no_address_of_a_plug(url):
    with pytest.raises(argparse.ArgumentTypeError, match="must be like http://192.168.1.20, not "):
        power.plug(url)


@pytest.mark.parametrize("answer", [*BAD_ANSWERS, "nobody"])
def test_a_plug_that_tells_no_power_yet_is_told_and_asked_again(answer, capsys):
    with serving() as server:
        server.body = BAD_ANSWERS.get(answer)
        url = f"http://{free_address() if answer == 'nobody' else server.address}"
        plug = power.plug(url)
        reason = "Connection refused" if answer == "nobody" else "its reply is not that of a Shelly or Tasmota"
        line = f"cannot read the plug at {url} ({reason}): trying again in each fit\n"
        assert capsys.readouterr().out == line
        server.body = None
        assert answer == "nobody" or plug.watts() == 7.5


def measured(meter: Meter, seconds: float) -> dict:
    """Return the figures of a block that takes that long."""
    with meter:
        time.sleep(seconds)
    return meter.figures(seconds)


@pytest.fixture
def meter(tmp_path, monkeypatch):
    """The meter of a Jetson that draws 4 W."""
    monkeypatch.setattr(power, "INTERVAL", 0.05)
    write(tmp_path, jetson({"VDD_IN": (5000, 800)}))
    meter = Meter(system=tmp_path)
    meter.vcgencmd = None
    return meter


def test_a_fit_is_measured_from_its_start_to_its_end(meter, vcgencmd):
    meter.vcgencmd = vcgencmd("echo throttled=0x5")
    for seconds in (0.3, 0.01):
        expected = {"energy_j": 4 * seconds, "power_w": 4.0, "power_source": "INA3221 VDD_IN"}
        assert measured(meter, seconds) == {**expected, "throttled": "under-voltage and throttled"}
        assert len(meter.watts) >= (3 if seconds > 0.1 else 2)


def test_the_mean_power(meter):
    readings = iter([2.0, 7.0])
    meter.source = power.PowerSource("plug", lambda: next(readings))  # then it fails
    assert measured(meter, 0.2) == {"energy_j": 0.9, "power_w": 4.5, "power_source": "plug"}


@pytest.mark.parametrize("content", ["", "-800", "0"])
def test_a_sensor_that_breaks_is_left_out_and_counts_again_later(meter, tmp_path, content):
    measured(meter, 0.01)
    write(tmp_path, jetson({"VDD_IN": (5000, content)}))
    assert measured(meter, 0.01) == {}
    write(tmp_path, jetson({"VDD_IN": (5000, 800)}))
    assert measured(meter, 0.01)["power_w"] == 4


def test_a_sensor_that_hangs_delays_a_fit_by_little(meter, monkeypatch, vcgencmd):
    monkeypatch.setattr(power, "TIMEOUT", 0.1)
    meter.vcgencmd = vcgencmd("exec sleep 5")
    with serving() as server:
        server.delay = 1.5
        meter.source = power.PowerSource("plug", lambda: power.plug_watts(server.address))
        started = time.monotonic()
        assert measured(meter, 0.05) == {} and time.monotonic() - started < 1

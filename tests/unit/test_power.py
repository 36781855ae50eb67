"""What a fit costs: made-up files and vcgencmd, real HTTP servers, and what may be wrong with any of them."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
import time

from federation.client import power, sensors
from federation.client.power import Meter, mean_power
from federation.client.sensors import Plug, find_power_source, in_words, ina3221, read_throttled

import pytest
from plugs import ANSWERS, BAD_ANSWERS, serving
from processes import ROOT, free_address

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


def jetpack_4(rails: dict, device: str = "6-0040", number: int = 0) -> dict:
    """Files of a Jetson with JetPack 4; rails in milliwatts."""
    folder = f"bus/i2c/drivers/ina3221x/{device}/iio:device{number}"
    files = {}
    for i, (name, milliwatts) in enumerate(rails.items()):
        files.update({f"{folder}/rail_name_{i}": name, f"{folder}/in_power{i}_input": milliwatts})
    return files


def jetpack_5(rails: dict, device: str = "1-0040", number: int = 3) -> dict:
    """Files of a Jetson with JetPack 5 or 6; rails in millivolts and milliamperes."""
    folder = f"bus/i2c/drivers/ina3221/{device}/hwmon/hwmon{number}"
    files = {f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": 99, f"{folder}/curr4_input": 99}
    for i, (name, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        files.update({f"{folder}/in{i}_label": name, f"{folder}/in{i}_input": millivolts})
        if milliamperes is not None:  # else the channel is off
            files[f"{folder}/curr{i}_input"] = milliamperes
    return files


JETSONS = {
    "Nano, JetPack 4": (
        jetpack_4({"POM_5V_IN": 3125, "POM_5V_GPU": 80, "POM_5V_CPU": 1200}), "INA3221 POM_5V_IN", 3.125,
    ),
    "TX2, JetPack 4": (
        {
            **jetpack_4({"VDD_SYS_GPU": 1, "VDD_SYS_SOC": 2, "VDD_4V0_WIFI": 3}, "0-0040", 0),
            **jetpack_4({"VDD_IN": 4500, "VDD_SYS_CPU": 5, "VDD_SYS_DDR": 6}, "0-0041", 1),
        },
        "INA3221 VDD_IN", 4.5,
    ),
    "AGX Xavier, JetPack 4": (
        {
            **jetpack_4({"GPU": 1000, "CPU": 2000, "SOC": 3000}, "1-0040", 0),
            **jetpack_4({"CV": 10, "VDDRQ": 500, "SYS5V": 4000}, "1-0041", 1),
        },
        "INA3221 CPU + CV + GPU + SOC + SYS5V + VDDRQ", 10.51,
    ),
    "Orin NX, JetPack 5": (
        jetpack_5({"VDD_IN": (5000, 1500), "VDD_CPU_GPU_CV": (5000, 300), "VDD_SOC": (5000, 200)}),
        "INA3221 VDD_IN", 7.5,
    ),
    "AGX Orin, JetPack 6": (
        {
            **jetpack_5({"VDD_GPU_SOC": (1000, 1), "VDD_CPU_CV": (1000, 2), "VIN_SYS_5V0": (5000, 800)}),
            **jetpack_5({"NC": (1000, 9), "VDDQ_VDD2_1V8AO": (5000, 80), "off": (0, None)}, "1-0041", 4),
        },
        "INA3221 VDDQ_VDD2_1V8AO + VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0", 4.403,
    ),
}  # fmt: skip


@pytest.mark.parametrize("board", JETSONS)
def test_a_jetson(tmp_path, board):
    files, name, watts = JETSONS[board]
    write(tmp_path, files)
    source = find_power_source(tmp_path, None)
    assert (source.name, source.is_counter) == (name, False)
    assert source.read() == pytest.approx(watts)


@pytest.mark.parametrize("content", ["", "many", "1e3", "\0", "0x10"])
def test_a_rail_that_cannot_be_read_is_none(tmp_path, content):
    write(tmp_path, jetpack_4({"POM_5V_IN": content}))
    with pytest.raises(ValueError):
        ina3221(tmp_path)
    write(tmp_path, {**jetpack_4({"POM_5V_IN": 5000})})
    source = ina3221(tmp_path)
    write(tmp_path, jetpack_4({"POM_5V_IN": content}))
    with pytest.raises(ValueError):
        source.read()


def packages(tmp_path, *counters, **others) -> None:
    for i, counter in enumerate(counters):
        zone = f"class/powercap/intel-rapl:{i}"
        write(
            tmp_path,
            {f"{zone}/name": f"package-{i}", f"{zone}/energy_uj": counter, f"{zone}/max_energy_range_uj": 1000},
        )
        write(tmp_path, {f"{zone}:0/name": "core", f"{zone}:0/energy_uj": 1, f"{zone}:0/max_energy_range_uj": 1000})
    write(tmp_path, {f"class/powercap/intel-rapl:9/{name}": content for name, content in others.items()})


def test_rapl_counts_packages_over_the_end_of_their_counters(tmp_path):
    packages(tmp_path, 400, 10, name="psys", energy_uj=5, max_energy_range_uj=1000)
    source = find_power_source(tmp_path, None)
    assert source.name == "RAPL" and source.is_counter
    start = source.read()
    for counters, microjoules in (((900, 10), 500), ((100, 30), 720), ((100, 30), 720), ((99, 31), 1720)):
        packages(tmp_path, *counters, energy_uj=10 * microjoules % 1000)
        assert source.read() - start == pytest.approx(microjoules / 1e6)


@pytest.mark.parametrize("files", [{"name": "psys"}, {"name": "package-0"}, {"name": "package-0", "energy_uj": "x"}])
def test_without_a_package_that_can_be_read_there_is_no_rapl(tmp_path, files):
    packages(tmp_path, **files)
    assert find_power_source(tmp_path, None) is None


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


def test_a_pi_5(tmp_path, vcgencmd):
    program = vcgencmd(f'[ "$1" = pmic_read_adc ] || exit 1\ncat <<END\n{PMIC}END')
    source = find_power_source(tmp_path, program)
    assert source.name == "PMIC"
    assert source.read() == pytest.approx(1.1451 * (0.1 * 3.7 + 2 * 0.8) + 0.5879)


NO_PMIC = {
    "a Pi 4": """echo 'error=1 error_msg="Command not registered"'""",
    "nothing": "",
    "no permission": "echo 'VCHI initialization failed'; exit 255",
    "a volt missing": "echo 'VDD_CORE_A current(7)=2.0A'",
    "no number": "echo 'VDD_CORE_A current(7)=.A'; echo 'VDD_CORE_V volt(7)=...V'",
    "bytes": r"printf '\377\376\000'",
}


@pytest.mark.parametrize("script", NO_PMIC.values(), ids=NO_PMIC)
def test_no_pmic(tmp_path, vcgencmd, script):
    assert find_power_source(tmp_path, vcgencmd(script)) is None


def test_the_order_of_the_sources(tmp_path, vcgencmd):
    program = vcgencmd(f"cat <<END\n{PMIC}END")
    packages(tmp_path, 1)
    assert find_power_source(tmp_path, None).name == "RAPL"
    assert find_power_source(tmp_path, program).name == "PMIC"
    write(tmp_path, jetpack_4({"POM_5V_IN": 5000}))
    assert find_power_source(tmp_path, program).name == "INA3221 POM_5V_IN"


@pytest.mark.parametrize(
    ("throttled", "words"),
    [
        ([0x0, 0x0], "no"),
        ([0x50000, 0x50000], "no"),  # that was before the fit
        ([0x0, 0x5, 0x50000], "under-voltage and throttled"),
        ([0x0, 0x20000], "frequency capped"),  # between two readings
        ([0x80008], "soft temperature limit"),
        ([0x10000, 0x3], "under-voltage and frequency capped"),
        ([0xF0, 0xFFFFFFF0], "under-voltage and frequency capped and throttled and soft temperature limit"),
    ],
)
def test_throttling_in_words(throttled, words):
    assert in_words(throttled) == words


def test_what_vcgencmd_says_about_throttling(vcgencmd):
    assert read_throttled(vcgencmd('[ "$1" = get_throttled ] && echo throttled=0x50005')) == 0x50005
    for script in ("echo throttled=", "echo", "echo error=1"):
        with pytest.raises(ValueError):
            read_throttled(vcgencmd(script))


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("watts", [7.5, 0, 12])
def test_a_plug(kind, watts, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(kind, watts) as server:
        plug = power.plug(f"http://{server.address}/")
        asked = server.asked
        assert plug.watts() == watts and server.asked == asked + 1  # it knows by now what to ask for


@pytest.mark.parametrize(
    "url", ["", "192.168.1.20", "https://192.168.1.20", "http://", "http://a b", "http://a/b", "ftp://a"]
)
def test_what_is_no_address_of_a_plug(url):
    with pytest.raises(argparse.ArgumentTypeError, match="must be like http://192.168.1.20, not "):
        power.plug(url)


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_what_is_no_plug(answer):
    with serving() as server:
        server.body = BAD_ANSWERS[answer]
        with pytest.raises(argparse.ArgumentTypeError, match="is of no use: no Shelly or Tasmota that measures"):
            power.plug(f"http://{server.address}")


def test_nobody_is_waited_for(monkeypatch, vcgencmd):
    monkeypatch.setattr(sensors, "TIMEOUT", 0.1)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        read_throttled(vcgencmd("exec sleep 5"))
    with serving() as server, pytest.raises(OSError):
        server.delay = 2
        Plug(server.address).watts()
    assert time.monotonic() - started < 1.5


def test_what_does_not_speak_http():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: [server.accept()[0].sendall(b"SSH-2.0-x\r\n\r\n") for _ in ANSWERS]).start()
        with pytest.raises(argparse.ArgumentTypeError, match="is of no use"):
            power.plug(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_a_plug_that_comes_later_is_known_then(capsys):
    address = free_address()
    plug = power.plug(f"http://{address}")
    expected = f"the plug at http://{address} does not answer (Connection refused): no power is told until it does\n"
    assert capsys.readouterr().out == expected
    with serving("Shelly, generation 1") as server:
        plug.address = server.address
        assert plug.watts() == 7.5


@pytest.mark.parametrize(
    ("samples", "is_counter", "seconds", "watts"),
    [
        ([], False, 1, None),
        ([(0, 3)], False, 0.5, 3),
        ([(0, 3)], False, 60, None),  # it fell silent
        ([(0, 3), (1, 5)], False, 1, 4),
        ([(5, 0), (6, 10), (9, 10)], False, 4, 8.75),
        ([(0, 5), (30, 5)], False, 60, None),
        ([(0, -3)], False, 0.5, None),
        ([(0, 3), (1, float("nan"))], False, 1, None),
        ([(0, 3), (1, 1e300)], False, 1, None),
        ([(0, 3)], True, 0.5, None),
        ([(0, 100), (1, 103), (2, 109)], True, 2, 4.5),
        ([(0, 100), (1, 1e9)], True, 1, None),
    ],
)
def test_mean_power(samples, is_counter, seconds, watts):
    assert mean_power(samples, is_counter, seconds) == watts


def measured(meter: Meter, seconds: float) -> tuple[dict, float]:
    """Return the figures of a block that takes that long, and how long it took in all."""
    started = time.monotonic()
    with meter:
        time.sleep(seconds)
    figures = meter.figures(seconds)
    return figures, time.monotonic() - started


@pytest.fixture
def meter(tmp_path, monkeypatch):
    """A meter without any sensor, for the time being."""
    monkeypatch.setattr(power, "INTERVAL", 0.05)
    meter = Meter(system=tmp_path)
    meter.vcgencmd = None
    return meter


def test_without_a_sensor_nothing_is_told(meter):
    assert measured(meter, 0.1)[0] == {}


def test_a_fit_is_measured_from_its_start_to_its_end(meter, tmp_path, vcgencmd):
    write(tmp_path, jetpack_4({"POM_5V_IN": 4000}))
    meter.vcgencmd = vcgencmd("echo throttled=0x5")
    for seconds in (0.3, 0.3, 0.01):
        figures, _ = measured(meter, seconds)
        expected = {"energy_j": 4 * seconds, "power_w": 4.0, "power_source": "INA3221 POM_5V_IN"}
        assert figures == {**expected, "throttled": "under-voltage and throttled"}
        assert len(meter.samples) >= (3 if seconds > 0.1 else 1)


def test_a_short_fit_has_the_energy_of_a_counter(meter, tmp_path, monkeypatch):
    monkeypatch.setattr(power, "INTERVAL", 60)
    packages(tmp_path, 0)
    started = time.monotonic()
    with meter:
        while not meter.samples:
            time.sleep(0.001)
        packages(tmp_path, 900)
    figures = meter.figures(time.monotonic() - started)
    assert len(meter.samples) == 2 and figures["power_source"] == "RAPL" and figures["energy_j"] >= 0.0009


def test_an_error_in_the_fit_ends_the_measurement(meter, tmp_path):
    write(tmp_path, jetpack_4({"POM_5V_IN": 4000}))
    with pytest.raises(ZeroDivisionError), meter:
        raise ZeroDivisionError
    meter.thread.join(2)
    assert not meter.thread.is_alive()


@pytest.mark.parametrize("content", ["", "many", "-5000", "9" * 30])
def test_a_sensor_that_breaks_is_left_out_and_counts_again_later(meter, tmp_path, content):
    write(tmp_path, jetpack_4({"POM_5V_IN": 4000}))
    measured(meter, 0.05)
    write(tmp_path, jetpack_4({"POM_5V_IN": content}))
    assert measured(meter, 0.05)[0] == {}
    with meter:
        time.sleep(0.1)
        write(tmp_path, jetpack_4({"POM_5V_IN": 4000}))
        deadline = time.monotonic() + 10
        while not meter.samples or meter.samples[-1][1] != 4:  # in the same fit
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_plug_comes_before_the_sensors_of_the_device(tmp_path, monkeypatch):
    write(tmp_path, jetpack_4({"POM_5V_IN": 4000}))
    with serving(watts=9) as server:
        figures, _ = measured(Meter(Plug(server.address), tmp_path), 0.3)
    assert (figures["power_w"], figures["power_source"]) == (9, "plug")


@pytest.mark.parametrize("answer", ["HTML", "huge", "long", "500", "gone", "hangs"])
def test_a_plug_that_stops_answering_harms_no_fit(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(power, "INTERVAL", 0.05)
    with serving() as server:
        meter = Meter(Plug(server.address), tmp_path)
        assert measured(meter, 0.1)[0]["power_w"] == 7.5
        if answer == "500":
            server.status = 500
        elif answer == "hangs":
            server.delay = 1.5
        elif answer == "gone":
            meter.source.read.__self__.address = free_address()
        else:
            server.body = BAD_ANSWERS[answer]
        for _ in range(2):
            figures, seconds = measured(meter, 0.1)
            assert figures == {} and seconds < 0.1 + power.LAST_WAIT + 0.2
        assert seconds < 0.1 + power.LAST_WAIT  # by now, the end of a fit waits for no answer


def test_a_vcgencmd_that_hangs_harms_no_fit(meter, vcgencmd):
    meter.vcgencmd = vcgencmd("exec sleep 5")
    threads = set()
    for _ in range(2):
        figures, seconds = measured(meter, 0.05)
        threads.add(meter.thread)
        assert figures == {} and seconds < 0.05 + power.LAST_WAIT + 0.2
    assert seconds < 0.05 + power.LAST_WAIT
    assert len(threads) == 1  # they do not pile up


def test_without_the_flag_http_is_not_loaded():
    script = "import sys, federation.client.flags; sys.exit('http.client' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)

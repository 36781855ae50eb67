"""What a fit costs a device: energy, mean power, and whether the device had to slow down.

Not tested on a real board: it follows the sources named here, and was tried with made-up files.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import threading
from contextlib import closing, suppress
from pathlib import Path
from statistics import fmean
from typing import Any, Callable, NamedTuple

INTERVAL = 1  # seconds between two samples
TIMEOUT = 1  # seconds that a plug or vcgencmd has to answer
LAST_WAIT = 0.2  # seconds that the end of a fit waits for the last sample

INPUT_RAILS = "VDD_IN", "POM_5V_IN"  # what feeds a board: https://github.com/rbonghi/jetson_stats/issues/51
# In the words of https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
THROTTLED = "under-voltage", "frequency capped", "throttled", "soft temperature limit"
PLUGS = {  # what to request, and where the reply has the watts
    "/rpc/Switch.GetStatus?id=0": ["apower"],  # Shelly, generation 2 and later: https://shelly-api-docs.shelly.cloud
    "/cm?cmnd=Status%208": ["StatusSNS", "ENERGY", "Power"],  # https://tasmota.github.io/docs/Commands
}


class PowerSource(NamedTuple):
    """A source of power readings. `watts` may raise any error."""

    name: str
    watts: Callable[[], float]


class Meter:
    """Measures during a `with` block, in a thread. A sensor that fails is left out, and harms no fit.

    The power comes from the first of these that exists: a metering plug, a Jetson's INA3221, a Raspberry Pi 5's PMIC.
    """

    def __init__(self, plug: PowerSource | None = None, system: Path = Path("/sys")) -> None:
        self.vcgencmd = shutil.which("vcgencmd")
        self.source = plug or ina3221(system) or pmic(self.vcgencmd)
        self.watts: list[float] = []
        self.throttled: list[int] = []
        self.over = threading.Event()
        self.thread = threading.Thread()

    def __enter__(self) -> None:
        self.watts, self.throttled, self.over = [], [], threading.Event()
        this_fit = self.watts, self.throttled, self.over
        self.thread = threading.Thread(target=self._sample, args=this_fit, daemon=True)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(LAST_WAIT)

    def figures(self, seconds: float) -> dict[str, Any]:
        """`energy_j`, `power_w`, `power_source` and `throttled` of the last block, which took `seconds`.

        Unknown values are left out.
        """
        figures: dict[str, Any] = {}
        power = fmean([*self.watts] or [0])  # a copy: a slow sensor may still add a value
        if self.source and power > 0:  # a fit takes more than 0 W: such a sensor is stuck
            figures.update(energy_j=round(power * seconds, 3), power_w=round(power, 3), power_source=self.source.name)
        if self.throttled:
            figures["throttled"] = in_words([*self.throttled])
        return figures

    def _sample(self, watts: list[float], throttled: list[int], over: threading.Event) -> None:
        is_over = False
        while True:
            with suppress(Exception):  # whatever a broken sensor raises
                if self.source:
                    watts.append(self.source.watts())
            with suppress(Exception):
                if self.vcgencmd:
                    throttled.append(int(ask(self.vcgencmd, "get_throttled").split("=")[1], 16))
            if is_over:
                return
            is_over = over.wait(INTERVAL)


def ina3221(system: Path) -> PowerSource | None:
    """A Jetson's input rail, or the sum of all where it has none (AGX); None if `system`, such as /sys, has no rails.

    The sum may count the memory of an AGX Orin twice.
    """
    rails = {}
    for label in system.glob("bus/i2c/drivers/ina3221*/*/hwmon/*/in[123]_label"):
        with suppress(OSError, ValueError):  # a channel that is switched off
            _rail_watts(label)
            rails[label.read_text().strip()] = label
    rails.pop("NC", None)  # not connected
    names = [name for name in INPUT_RAILS if name in rails][:1] or sorted(rails)
    if not names:
        return None
    return PowerSource(f"INA3221 {' + '.join(names)}", lambda: sum(_rail_watts(rails[name]) for name in names))


def _rail_watts(label: Path) -> float:
    """Power on the rail with the label in a file such as in1_label: in1_input in mV times curr1_input in mA."""
    number = label.name[2]
    millivolts, milliamperes = (int(label.with_name(f"{kind}{number}_input").read_text()) for kind in ("in", "curr"))
    return millivolts * milliamperes / 1e6


def pmic(vcgencmd: str | None) -> PowerSource | None:
    """A Raspberry Pi 5's PMIC, asked by the program `vcgencmd`; None on other boards."""
    with suppress(Exception):  # whatever other boards answer
        if vcgencmd:
            _pmic_watts(vcgencmd)
            return PowerSource("PMIC", lambda: _pmic_watts(vcgencmd))
    return None


def _pmic_watts(vcgencmd: str) -> float:
    """Power of a whole Raspberry Pi 5, estimated from the sum over the PMIC's rails by a fit to a USB meter.

    Source of the fit: https://github.com/jfikar/RPi5-power. It does not include devices on USB.
    """
    answer = ask(vcgencmd, "pmic_read_adc")  # such as "VDD_CORE_A current(7)=1.5A", "VDD_CORE_V volt(15)=0.88V"
    values = {name: float(value) for name, value in re.findall(r"(\w+) \w+\(\d+\)=([\d.]+)", answer)}
    rails = [amperes * values[f"{name[:-1]}V"] for name, amperes in values.items() if name.endswith("_A")]
    if not rails:
        raise ValueError("this board has no such PMIC")
    return 1.1451 * sum(rails) + 0.5879


def in_words(throttled: list[int]) -> str:
    """What happened while these values were read, one after the other: "no", or "under-voltage", for example.

    Bits 0 to 3 say what is happening now, bits 16 to 19 what has happened since the board booted.
    """
    bits = 0
    for reading in throttled:
        bits |= reading & 0xF | (reading & ~throttled[0]) >> 16
    return " and ".join(words for bit, words in enumerate(THROTTLED) if bits >> bit & 1) or "no"


def ask(vcgencmd: str, question: str) -> str:
    """Return the program's output; raises OSError or SubprocessError if it fails."""
    return subprocess.run([vcgencmd, question], check=True, timeout=TIMEOUT, capture_output=True, text=True).stdout


def plug(url: str) -> PowerSource:
    """Convert to a metering plug, a Shelly or a Tasmota without a password; print a line if it cannot be read now.

    Raises argparse's error for a wrong value if `url` is not an address.
    """
    match = re.fullmatch(r"http://([^\s/]+)/?", url)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like http://192.168.1.20, not {url!r}")
    try:
        plug_watts(match[1])
    except Exception as error:  # after a power cut, it may be up later than the board
        reason = getattr(error, "strerror", None) or error
        print(f"cannot read the plug at {url} ({reason}): trying again in each fit")
    return PowerSource("plug", lambda: plug_watts(match[1]))


def plug_watts(address: str) -> float:
    """Power that a plug at HOST or HOST:PORT measures; raises OSError if it does not answer, or else any error."""
    from http.client import HTTPConnection  # here, because few need it; it ignores proxies

    for path, keys in PLUGS.items():
        with closing(HTTPConnection(address, timeout=TIMEOUT)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse().read()
        with suppress(ValueError, LookupError, TypeError):  # it is the other kind
            value = json.loads(answer)
            for key in keys:
                value = value[key]
            return float(value)
    raise ValueError("its reply is not that of a Shelly or Tasmota")

"""What a machine can tell about its power, and whether a Raspberry Pi slows down: sysfs, vcgencmd, a metering plug.

No board was at hand when this was written: it follows the sources that are named, and was tried with made-up files.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Callable, NamedTuple

TIMEOUT = 2  # seconds that a plug or vcgencmd has for an answer
LONGEST_ANSWER = 100_000  # bytes

INPUT_RAILS = "VDD_IN", "POM_5V_IN"  # what feeds a board: https://github.com/rbonghi/jetson_stats/issues/51
# In the words of https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
THROTTLED = "under-voltage", "frequency capped", "throttled", "soft temperature limit"
PLUGS = {  # what to ask for, and where in the answer the watts are
    "/rpc/Switch.GetStatus?id=0": ["apower"],  # Shelly, generation 2 and later: https://shelly-api-docs.shelly.cloud
    "/meter/0": ["power"],  # Shelly, generation 1
    "/cm?cmnd=Status%208": ["StatusSNS", "ENERGY", "Power"],  # https://tasmota.github.io/docs/Commands
}


class PowerSource(NamedTuple):
    """Where power is read. `read` returns watts, or if it `is_counter`, joules so far; it may raise anything."""

    name: str
    read: Callable[[], float]
    is_counter: bool = False


def find_power_source(system: Path, vcgencmd: str | None) -> PowerSource | None:
    """Return the first source that answers: in folders below `system`, such as /sys, or the program `vcgencmd`."""
    for find in (lambda: ina3221(system), lambda: pmic(vcgencmd), lambda: rapl(system)):
        with suppress(Exception):  # whatever a broken sensor gives
            source = find()
            source.read()
            return source
    return None


def ina3221(system: Path) -> PowerSource:
    """Return a Jetson's input rail, or where it has none (AGX), the sum of all; raises ValueError if there is no rail.

    The sum may count the memory of an AGX Orin twice.
    """
    drivers, rails = system / "bus/i2c/drivers", {}
    for label in (*drivers.glob("ina3221*/*/iio*/rail_name_?"), *drivers.glob("ina3221*/*/hwmon/*/in[123]_label")):
        if label.name.startswith("rail"):  # JetPack 4: milliwatts
            factors = [label.with_name(f"in_power{label.name[-1]}_input")]
        else:  # millivolts and milliamperes
            factors = [label.with_name(f"{kind}{label.name[2]}_input") for kind in ("in", "curr")]
        with suppress(OSError, ValueError):  # a channel that is switched off
            _product(factors)
            rails[label.read_text().strip()] = factors
    rails.pop("NC", None)  # not connected
    names = [name for name in INPUT_RAILS if name in rails][:1] or sorted(rails)
    if not names:
        raise ValueError("no rails")
    return PowerSource(f"INA3221 {' + '.join(names)}", lambda: sum(_product(rails[name]) for name in names))


def _product(factors: list[Path]) -> float:
    return math.prod(int(factor.read_text()) / 1000 for factor in factors)


def pmic(vcgencmd: str | None) -> PowerSource:
    """Return what the whole of a Raspberry Pi 5 draws, as fitted to the sum over the PMIC's rails with a USB meter.

    Source of the fit: https://github.com/jfikar/RPi5-power. It knows nothing of what hangs on USB.
    """

    def watts() -> float:
        answer = ask(vcgencmd, "pmic_read_adc")  # such as "VDD_CORE_A current(7)=1.5A", "VDD_CORE_V volt(15)=0.88V"
        values = {name: float(value) for name, value in re.findall(r"(\w+) \w+\(\d+\)=([\d.]+)", answer)}
        rails = [amperes * values[f"{name[:-1]}V"] for name, amperes in values.items() if name.endswith("_A")]
        if not rails:
            raise ValueError("a board without that PMIC")
        return 1.1451 * sum(rails) + 0.5879

    return PowerSource("PMIC", watts)


def rapl(system: Path) -> PowerSource:
    """Return the energy of an x86 machine's processor packages; raises OSError or ValueError if it cannot be read."""
    names = system.glob("class/powercap/intel-rapl:*/name")  # also of parts of packages, and of whole laptops
    packages = [name.parent for name in names if name.read_text().startswith("package")]
    ranges = [int((package / "max_energy_range_uj").read_text()) for package in packages]
    last, total = [0] * len(packages), 0
    if not packages:
        raise ValueError("no packages")

    def joules() -> float:
        nonlocal last, total
        counters = [int((package / "energy_uj").read_text()) for package in packages]
        total += sum((new - old) % largest for new, old, largest in zip(counters, last, ranges))  # they wrap around
        last = counters
        return total / 1e6

    return PowerSource("RAPL", joules, is_counter=True)


def read_throttled(vcgencmd: str) -> int:
    """Return the bits of `vcgencmd get_throttled`: 0 to 3 say what is now, 16 to 19 what was since the start."""
    return int(ask(vcgencmd, "get_throttled").strip().replace("throttled=", ""), 16)


def in_words(throttled: list[int]) -> str:
    """Return what went on while these bits were read, one after the other: "no", or such as "under-voltage"."""
    bits = (throttled[-1] & ~throttled[0]) >> 16  # what was between two readings
    for now in throttled:
        bits |= now
    return " and ".join(words for bit, words in enumerate(THROTTLED) if bits >> bit & 1) or "no"


def ask(vcgencmd: str | None, question: str) -> str:
    """Return what the program answers; raises OSError or SubprocessError if it does not."""
    if vcgencmd is None:
        raise FileNotFoundError("no vcgencmd")
    command = [vcgencmd, question]
    # Without close_fds, Python 3.8 and 3.9 need not copy the tables of this large process, either.
    return subprocess.run(
        command, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, close_fds=False
    ).stdout


class Plug:
    """A metering plug at HOST or HOST:PORT: a Shelly or a Tasmota without a password. Asking tells which."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.questions = [*PLUGS]

    def watts(self) -> float:
        """Return what the plug measures; raises OSError if nobody answers, ValueError if something else does."""
        for question in self.questions:
            with suppress(ValueError):
                watts = self._ask(question)
                self.questions = [question]
                return watts
        raise ValueError("no Shelly or Tasmota that measures")

    def _ask(self, question: str) -> float:
        from http.client import HTTPConnection, HTTPException  # here, because few need it; it knows no proxies

        try:
            connection = HTTPConnection(self.address, timeout=TIMEOUT)
            try:
                connection.request("GET", question)
                response = connection.getresponse()
                if response.status != 200:
                    raise ValueError(response.reason)
                answer = json.loads(response.read(LONGEST_ANSWER))
            finally:
                connection.close()
            for key in PLUGS[question]:
                answer = answer[key]
            return float(answer)
        except (HTTPException, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

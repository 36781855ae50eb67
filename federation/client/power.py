"""What a fit costs a device: its energy, its mean power, and whether it had to slow down.

No board was at hand when this was written: it follows the sources that are named, and was tried with made-up files.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, NamedTuple

INTERVAL = 1  # seconds between two samples
LAST_WAIT = 0.2  # seconds that the end of a fit waits for the last sample
MOST_WATTS = 10_000
TIMEOUT = 2  # seconds that a plug or vcgencmd has for an answer
LONGEST_ANSWER = 100_000  # bytes

INPUT_RAILS = "VDD_IN", "POM_5V_IN"  # what feeds a board: https://github.com/rbonghi/jetson_stats/issues/51
# In the words of https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
THROTTLED = "under-voltage", "frequency capped", "throttled", "soft temperature limit"
PLUGS = {  # what to ask for, and where in the answer the watts are
    "/rpc/Switch.GetStatus?id=0": ["apower"],  # Shelly, generation 2 and later: https://shelly-api-docs.shelly.cloud
    "/cm?cmnd=Status%208": ["StatusSNS", "ENERGY", "Power"],  # https://tasmota.github.io/docs/Commands
}


class PowerSource(NamedTuple):
    """Where power is read. `watts` may raise anything."""

    name: str
    watts: Callable[[], float]


class Meter:
    """Measures what happens in a `with` block, in a thread. No sensor, whatever it answers, harms a fit.

    The power comes from the first of these that there is: a metering plug, a Jetson's INA3221, a Raspberry Pi 5's PMIC.
    """

    def __init__(self, plug: Plug | None = None, system: Path = Path("/sys")) -> None:
        self.source = None if plug is None else PowerSource("plug", plug.watts)
        self.system = system
        self.vcgencmd = shutil.which("vcgencmd")
        self.thread = threading.Thread()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.samples: list[tuple[float, float]] = []  # seconds, watts
        self.throttled: list[int] = []
        self.over = threading.Event()

    def __enter__(self) -> None:
        self._start_afresh()
        if not self.thread.is_alive():  # else it waits for an answer, since an earlier fit
            this_fit = self.samples, self.throttled, self.over
            self.thread = threading.Thread(target=self._sample, args=this_fit, daemon=True)
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(LAST_WAIT)

    def figures(self, seconds: float) -> dict[str, Any]:
        """Return `energy_j`, `power_w`, `power_source` and `throttled` of the last block, which took so many seconds.

        What the device cannot tell is left out.
        """
        figures: dict[str, Any] = {}
        watts = mean_power([*self.samples], seconds)
        if self.source and watts is not None:
            figures.update(energy_j=round(watts * seconds, 3), power_w=round(watts, 3), power_source=self.source.name)
        if self.throttled:
            figures["throttled"] = in_words([*self.throttled])
        return figures

    def _sample(self, samples: list[tuple[float, float]], throttled: list[int], over: threading.Event) -> None:
        self.source = self.source or find_power_source(self.system, self.vcgencmd)
        while self.source or self.vcgencmd:
            is_last = over.is_set()
            with suppress(Exception):  # whatever a broken sensor gives
                if self.source:
                    watts = self.source.watts()
                    samples.append((time.monotonic(), watts))
            with suppress(Exception):
                if self.vcgencmd:
                    throttled.append(read_throttled(self.vcgencmd))
            if is_last:
                return
            over.wait(INTERVAL)


def mean_power(samples: list[tuple[float, float]], seconds: float) -> float | None:
    """The mean power in watts of samples, (seconds, watts); None if they span too little of the fit or cannot be."""
    if not samples or samples[-1][0] - samples[0][0] < 0.9 * seconds - INTERVAL:
        return None
    watts = samples[0][1]
    if len(samples) > 1:  # the trapezoidal rule
        areas = [(t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in zip(samples, samples[1:])]
        watts = sum(areas) / (samples[-1][0] - samples[0][0])
    return watts if 0 < watts <= MOST_WATTS else None  # at 0 W, no fit comes off: such a sensor stands still


def find_power_source(system: Path, vcgencmd: str | None) -> PowerSource | None:
    """Return the first source that answers: in folders below `system`, such as /sys, or the program `vcgencmd`."""
    with suppress(Exception):  # whatever a broken sensor gives
        source = ina3221(system)
        source.watts()
        return source
    with suppress(Exception):
        if vcgencmd:
            pmic_watts(vcgencmd)
            return PowerSource("PMIC", lambda: pmic_watts(vcgencmd))
    return None


def ina3221(system: Path) -> PowerSource:
    """Return a Jetson's input rail, or where it has none (AGX), the sum of all; raises ValueError if there is no rail.

    The sum may count the memory of an AGX Orin twice.
    """
    rails = {}
    for label in (system / "bus/i2c/drivers").glob("ina3221*/*/hwmon/*/in[123]_label"):
        factors = [label.with_name(f"{kind}{label.name[2]}_input") for kind in ("in", "curr")]  # mV, mA
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


def pmic_watts(vcgencmd: str) -> float:
    """What the whole of a Raspberry Pi 5 draws, as fitted to the sum over the PMIC's rails with a USB meter.

    Source of the fit: https://github.com/jfikar/RPi5-power. It knows nothing of what hangs on USB. Raises ValueError
    or KeyError on other boards.
    """
    answer = ask(vcgencmd, "pmic_read_adc")  # such as "VDD_CORE_A current(7)=1.5A", "VDD_CORE_V volt(15)=0.88V"
    values = {name: float(value) for name, value in re.findall(r"(\w+) \w+\(\d+\)=([\d.]+)", answer)}
    rails = [amperes * values[f"{name[:-1]}V"] for name, amperes in values.items() if name.endswith("_A")]
    if not rails:
        raise ValueError("a board without that PMIC")
    return 1.1451 * sum(rails) + 0.5879


def read_throttled(vcgencmd: str) -> int:
    """Return the bits of `vcgencmd get_throttled`: 0 to 3 say what is now, 16 to 19 what was since the start."""
    return int(ask(vcgencmd, "get_throttled").strip().replace("throttled=", ""), 16)


def in_words(throttled: list[int]) -> str:
    """What went on while these bits were read, one after the other: "no", or such as "under-voltage"."""
    bits = (throttled[-1] & ~throttled[0]) >> 16  # what was between two readings
    for now in throttled:
        bits |= now
    return " and ".join(words for bit, words in enumerate(THROTTLED) if bits >> bit & 1) or "no"


def ask(vcgencmd: str, question: str) -> str:
    """Return what the program answers; raises OSError or SubprocessError if it does not."""
    command = [vcgencmd, question]
    # Without close_fds, Python 3.8 and 3.9 need not copy the tables of this large process, either.
    return subprocess.run(
        command, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, close_fds=False
    ).stdout


class Plug:
    """A metering plug at HOST or HOST:PORT: a Shelly or a Tasmota without a password. Asking tells which."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.paths = [*PLUGS]

    def watts(self) -> float:
        """Return what the plug measures; raises OSError if nobody answers, ValueError if something else does."""
        for path in self.paths:
            with suppress(ValueError):
                watts = self._ask(path)
                self.paths = [path]
                return watts
        raise ValueError("no reading of a Shelly or Tasmota")

    def _ask(self, path: str) -> float:
        from http.client import HTTPConnection, HTTPException  # here, because few need it; it knows no proxies

        connection = HTTPConnection(self.address, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(response.reason)
            answer = json.loads(response.read(LONGEST_ANSWER))
            for key in PLUGS[path]:
                answer = answer[key]
            return math.fsum(answer) if isinstance(answer, list) else float(answer)  # a list: of its channels
        except (HTTPException, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()


def plug(url: str) -> Plug:
    """Convert to a plug, and tell if it gives no power just now; raises ArgumentTypeError if that is no address."""
    match = re.fullmatch(r"http://(([^\s/?#@:]+|\[\S+\])(:\d+)?)/?", url)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like http://192.168.1.20, not {url!r}")
    found = Plug(match[1])
    try:
        found.watts()
    except (OSError, ValueError) as error:  # after a power cut, it may come later than the board
        reason = getattr(error, "strerror", None) or error
        print(f"the plug at {url} tells no power ({reason}): it is asked again in each fit")
    return found

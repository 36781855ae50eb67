"""What a fit costs a device: its energy, its mean power, and whether it had to slow down."""

from __future__ import annotations

import argparse
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation.client.sensors import Plug, PowerSource, find_power_source, in_words, read_throttled

INTERVAL = 1  # seconds between two samples
LAST_WAIT = 0.2  # seconds that the end of a fit waits for the last sample
MOST_WATTS = 10_000


class Meter:
    """Measures what happens in a `with` block, in a thread. No sensor, whatever it answers, harms a fit.

    The power comes from the first of these that there is: a metering plug, a Jetson's INA3221, a Raspberry Pi 5's PMIC,
    RAPL on x86.
    """

    def __init__(self, plug: Plug | None = None, system: Path = Path("/sys")) -> None:
        self.source = None if plug is None else PowerSource("plug", plug.watts)
        self.system = system
        self.vcgencmd = shutil.which("vcgencmd")
        self.thread = threading.Thread()
        self.was_late = False  # the last sample of the fit before

    def __enter__(self) -> None:
        self.samples: list[tuple[float, float]] = []  # seconds, what the source said
        self.throttled: list[int] = []
        self.over = threading.Event()
        if not self.thread.is_alive():  # else it waits for an answer, since an earlier fit
            this_fit = self.samples, self.throttled, self.over
            self.thread = threading.Thread(target=self._sample, args=this_fit, daemon=True)
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.samples or not self.was_late:
            self.thread.join(LAST_WAIT)
        self.was_late = self.thread.is_alive()

    def figures(self, seconds: float) -> dict[str, Any]:
        """Return `energy_j`, `power_w`, `power_source` and `throttled` of the last block, which took so many seconds.

        What the device cannot tell is left out.
        """
        figures: dict[str, Any] = {}
        watts = mean_power([*self.samples], self.source.is_counter, seconds) if self.source else None
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
                    value = self.source.read()
                    samples.append((time.monotonic(), value))
            with suppress(Exception):
                if self.vcgencmd:
                    throttled.append(read_throttled(self.vcgencmd))
            if is_last:
                return
            over.wait(INTERVAL)


def mean_power(samples: list[tuple[float, float]], is_counter: bool, seconds: float) -> float | None:
    """Return the mean power in watts; None if the samples, (seconds, watts or joules), span too little of the fit."""
    if len(samples) <= is_counter or samples[-1][0] - samples[0][0] < 0.9 * seconds - INTERVAL:
        return None
    (start, first), (end, last) = samples[0], samples[-1]
    if len(samples) == 1:
        watts = first
    elif is_counter:
        watts = (last - first) / (end - start)
    else:  # the trapezoidal rule
        watts = sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in zip(samples, samples[1:])) / (end - start)
    return watts if 0 <= watts <= MOST_WATTS else None


def plug(url: str) -> Plug:
    """Convert to a plug, and tell if it does not answer just now; raises ArgumentTypeError if it is something else."""
    match = re.fullmatch(r"http://([^\s/?#@]+)/?", url)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like http://192.168.1.20, not {url!r}")
    found = Plug(match[1])
    try:
        found.watts()
    except OSError as error:  # it may come later than the board after a power cut
        print(f"the plug at {url} does not answer ({error.strerror or error}): no power is told until it does")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{url} is of no use: {error}") from None
    return found

"""What a device tells about itself: name, memory, temperature. What it cannot tell is left out."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Iterator

from flwr.client import NumPyClient
from flwr.common import NDArrays, Scalar

try:
    import resource
except ImportError:  # Windows
    resource = None


def describe() -> str:
    """Return the host's name and what it is, such as `pi3 (Raspberry Pi 4 Model B Rev 1.4)`."""
    try:
        board = Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        board = f"{platform.system()} {platform.machine()}"
    return f"{platform.node()} ({board})"


def vital_signs() -> dict[str, float]:
    """Return `peak_memory_mb` (of this process, so far) and `temperature_c` (of the processor)."""
    signs = {}
    if resource is not None:
        unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        signs["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    temperatures = list(_processor_temperatures())
    if temperatures:
        signs["temperature_c"] = max(temperatures)
    return signs


def _processor_temperatures() -> Iterator[float]:
    """Yield the temperature of each thermal zone of the processor, in degrees Celsius (Linux only)."""
    for zone in Path("/sys/class/thermal").glob("thermal_zone*"):
        try:
            kind = (zone / "type").read_text().lower()  # cpu-thermal, CPU-therm, x86_pkg_temp, ...
            if "cpu" in kind or "x86_pkg" in kind:
                yield int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):  # zones of parts that are switched off cannot be read
            continue


class ReportingClient(NumPyClient):
    """Wraps a client: prints a line for each fit and evaluate, and adds to its metrics what a server wants to know.

    That is `cid`, `device`, `seconds` and `vital_signs()`.
    """

    def __init__(self, client: NumPyClient, cid: int) -> None:
        self.client = client
        self.identity = {"cid": cid, "device": describe()}

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """Return the wrapped client's parameters."""
        return self.client.get_parameters(config)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Let the wrapped client train; report about it."""
        started = time.perf_counter()
        parameters, num_examples, metrics = self.client.fit(parameters, config)
        seconds = time.perf_counter() - started
        _print_line("fit", config, num_examples, seconds, metrics)
        return parameters, num_examples, self._with_signs(metrics, seconds)

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Let the wrapped client evaluate; report about it."""
        started = time.perf_counter()
        loss, num_examples, metrics = self.client.evaluate(parameters, config)
        seconds = time.perf_counter() - started
        _print_line("evaluate", config, num_examples, seconds, {"loss": loss, **metrics})
        return loss, num_examples, self._with_signs(metrics, seconds)

    def _with_signs(self, metrics: dict[str, Scalar], seconds: float) -> dict[str, Scalar]:
        return {**metrics, **self.identity, "seconds": round(seconds, 3), **vital_signs()}


def _print_line(
    task: str, config: dict[str, Scalar], num_examples: int, seconds: float, metrics: dict[str, Scalar]
) -> None:
    figures = "".join(f", {name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    print(f"round {config['server_round']}: {task} on {num_examples} examples{figures}, {seconds:.1f} s", flush=True)

"""What a device tells about itself: name, memory, temperature. What it cannot tell is left out."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Iterator

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def describe() -> str:
    """Return the host's name and what it is, such as `pi3 (Raspberry Pi 4 Model B Rev 1.4)`."""
    try:
        board = Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        board = f"{platform.system()} {platform.machine()}"
    return f"{platform.node()} ({board})"


def versions() -> str:
    """Return the versions of Python and of those loaded packages that count for what is computed."""
    modules = [sys.modules[name] for name in ("flwr", "numpy", "torch", "tensorflow") if name in sys.modules]
    return ", ".join([f"Python {platform.python_version()}", *(f"{m.__name__} {m.__version__}" for m in modules)])


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

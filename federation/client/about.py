"""What a device reports about itself: identity, memory, temperature. Unknown values are left out."""

from __future__ import annotations

import inspect
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Iterator

from federation.data.partition_file import read_classes
from federation.data.partitions import Partitioning
from federation.wire.handshake import Identity, class_list, fingerprint, printable

from flwr.client import NumPyClient

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Sensors of a processor, beside those with "cpu" (cpu-thermal, CPU-therm) or "core" (bigcore0-thermal) in their name.
PROCESSORS = "x86_pkg_temp", "soc-thermal", "k10temp"


def identify(client: NumPyClient, partitioning: Partitioning, cid: int, instance: str, keeps_model: bool) -> Identity:
    """The identity of a script's client that has partition `cid`; for the last two, see `Identity`."""
    return Identity(
        cid=cid,
        device=printable(describe()),
        instance=instance,
        script=printable(Path(inspect.getfile(type(client))).name),
        dataset=partitioning.dataset,
        num_clients=partitioning.num_clients,
        model=fingerprint(client.get_parameters({})),
        alpha="" if partitioning.alpha is None else str(partitioning.alpha),
        classes=class_list(read_classes(partitioning.file(cid))),
        versions=printable(versions()),
        keeps_model=keeps_model,
    )


def describe() -> str:
    """Return the host's name and kind, such as `pi3 (Raspberry Pi 4 Model B Rev 1.4)`."""
    try:
        board = Path("/proc/device-tree/model").read_bytes().decode(errors="replace").rstrip("\0\n")
    except OSError:
        board = f"{platform.system()} {platform.machine()}"
    return f"{platform.node()} ({board})"


def versions() -> str:
    """Return the versions of Python and of the loaded packages that affect the results."""
    modules = [
        sys.modules[name] for name in ("flwr", "numpy", "torch", "tensorflow", "onnxruntime") if name in sys.modules
    ]
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
    """Yield what the processor's thermal zones and monitors measure, in degrees Celsius (Linux only)."""
    zones = [(kind, kind.with_name("temp")) for kind in Path("/sys/class/thermal").glob("thermal_zone*/type")]
    monitors = [(name, name.with_name("temp1_input")) for name in Path("/sys/class/hwmon").glob("hwmon*/name")]
    for label, value in [*zones, *monitors]:
        with suppress(OSError, ValueError):  # a sensor that is switched off cannot be read, or its value makes no sense
            kind = label.read_text().strip().lower()
            degrees = int(value.read_text()) / 1000
            if ("cpu" in kind or "core" in kind or kind in PROCESSORS) and 0 < degrees < 150:
                yield degrees

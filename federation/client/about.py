"""What a device tells about itself: who it is, memory, temperature. What it cannot tell is left out."""

from __future__ import annotations

import inspect
import platform
import sys
from contextlib import suppress
from pathlib import Path

from federation.data.partition_file import read_classes
from federation.data.partitions import Partition
from federation.wire.handshake import Identity, class_list, fingerprint, printable

from flwr.client import NumPyClient

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# What the kinds of a processor's sensors have in their names, such as cpu-thermal, CPU-therm, bigcore0-thermal.
PROCESSORS = "cpu", "core", "soc-", "x86_pkg"


def identify(client: NumPyClient, partition: Partition, instance: str, keeps_model: bool) -> Identity:
    """Identity of a script's client that has this partition; for the last two, see `Identity`."""
    return Identity(
        cid=partition.cid,
        device=printable(describe()),
        instance=instance,
        script=printable(Path(inspect.getfile(type(client))).name),
        dataset=partition.dataset,
        num_clients=partition.num_clients,
        model=fingerprint(client.get_parameters({})),
        alpha="" if partition.alpha is None else str(partition.alpha),
        classes=class_list(read_classes(partition.path)),
        versions=printable(versions()),
        keeps_model=keeps_model,
    )


def describe() -> str:
    """Name of the host and what it is, such as `pi3 (Raspberry Pi 4 Model B Rev 1.4)`."""
    try:
        board = Path("/proc/device-tree/model").read_bytes().decode(errors="replace").rstrip("\0\n")
    except OSError:
        board = f"{platform.system()} {platform.machine()}"
    return f"{platform.node()} ({board})"


def versions() -> str:
    """Versions of Python and of those loaded packages that count for what is computed."""
    modules = [sys.modules[name] for name in ("flwr", "numpy", "torch", "tensorflow") if name in sys.modules]
    return ", ".join([f"Python {platform.python_version()}", *(f"{m.__name__} {m.__version__}" for m in modules)])


def vital_signs() -> dict[str, float]:
    """`peak_memory_mb` (of this process, so far) and `temperature_c` (of the processor)."""
    signs = {}
    if resource is not None:
        unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        signs["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    temperatures = []
    for kind in Path("/sys/class/thermal").glob("thermal_zone*/type"):  # Linux only
        with suppress(OSError, ValueError):  # a zone that is switched off
            if any(name in kind.read_text().lower() for name in PROCESSORS):
                temperatures.append(int(kind.with_name("temp").read_text()) / 1000)
    if temperatures:
        signs["temperature_c"] = max(temperatures)
    return signs

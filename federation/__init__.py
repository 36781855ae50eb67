"""The code behind the scripts, in seven packages: data, wire, client, server, results, engine, teach.

Import this package before flwr, torch, tensorflow or matplotlib: it sets defaults that they read once, when they are
imported. All but the last can be overridden from the environment.
"""

from __future__ import annotations

import logging
import os

_DEFAULTS = {
    "FLWR_TELEMETRY_ENABLED": "0",  # no usage reports to Flower; without internet they delay the exit by minutes
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # on Python 3.8 gRPC's fork handlers hang one exit in four
    "GRPC_DNS_RESOLVER": "native",  # finds names such as laptop.local as the rest of the system does
    "OPENCV_LOG_LEVEL": "OFF",  # a missing camera is reported once, not at each attempt
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's: for the small matrices here, threads cost more than they save
    "TF_CPP_MIN_LOG_LEVEL": "2",  # hides most of TensorFlow's startup lines, keeps its errors
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
os.environ["MPLBACKEND"] = "agg"  # pictures go into files; a notebook's backend cannot even be imported elsewhere


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Keep Flower's warnings and errors; drop its progress lines and the banner that start_server is deprecated."""
    banner = str(record.msg).startswith(("DEPRECATED FEATURE", "FEATURE UPDATE"))
    return record.levelno >= logging.WARNING and not banner


logging.getLogger("flwr").addFilter(_is_worth_showing)

"""Notice a lost network, which neither Flower nor gRPC's defaults do in reasonable time.

When a device's Wi-Fi goes, nobody tells the other side: an idle Flower client would wait for ever. TCP can ask
whether the other side is still there, but neither Flower nor gRPC has a setting for it. So this looks for the sockets
of the connections among the files that this process has open, and sets it there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

# The other side is asked after IDLE seconds of silence, then every INTERVAL. After LOST seconds without an answer, or
# without any progress in sending, the connection is given up.
IDLE, INTERVAL, LOST = 20, 4, 65
SWEEP_PAUSE = 5  # seconds
OPEN_FILES = Path("/dev/fd")  # on Linux and macOS

OPTIONS = {
    "TCP_KEEPIDLE": IDLE,
    "TCP_KEEPALIVE": IDLE,  # its name on macOS
    "TCP_KEEPINTVL": INTERVAL,
    "TCP_KEEPCNT": (LOST - IDLE) // INTERVAL,
    "TCP_USER_TIMEOUT": LOST * 1000,  # milliseconds; Linux only
}


def watch_connections(port: int) -> None:
    """Have the TCP connections that use `port`, here or on the other side, watched as long as this process runs.

    Does nothing on Windows, where a process cannot list its sockets.
    """
    if OPEN_FILES.is_dir():
        threading.Thread(target=_sweep_for_ever, args=(port,), daemon=True).start()


def _sweep_for_ever(port: int) -> None:
    done: set[tuple] = set()
    while True:
        with contextlib.suppress(OSError):  # so many files are open that not even their list can be
            done = _sweep(port, done)
        time.sleep(SWEEP_PAUSE)


def _sweep(port: int, done: set[tuple]) -> set[tuple]:
    """Set the options on the connections that are not in `done`; return those that there are now."""
    connections = set()
    for number in OPEN_FILES.iterdir():
        try:
            connection = socket.socket(fileno=int(number.name))
        except OSError:  # no socket
            continue
        try:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            ends = connection.getsockname(), connection.getpeername()  # each (host, port, ...)
            if port in (ends[0][1], ends[1][1]):
                connections.add(ends)
                if ends not in done:
                    _set_options(connection)
        except OSError:  # not connected, or closed in the meantime
            pass
        finally:
            connection.detach()  # it is gRPC's, not ours to close
    return connections


def _set_options(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

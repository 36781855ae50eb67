"""Notice a lost network, which neither Flower nor gRPC's defaults do in reasonable time.

When a device's Wi-Fi goes, nobody tells the other side: an idle client would wait for ever, and Flower's server, which
pings its clients every 210 s, would notice after minutes. A client cannot ping more often than every five minutes: the
server would drop it ("Too many pings"), and Flower has no setting for either. TCP can ask whether the other side is
still there, but gRPC has no setting for that. So this finds the connections among the files that this process has open,
and sets it there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

SWEEP_PAUSE = 5  # seconds
OPEN_FILES = Path("/dev/fd")  # on Linux and macOS

OPTIONS = {
    "TCP_KEEPIDLE": 20,  # seconds of silence, then the other side is asked
    "TCP_KEEPALIVE": 20,  # its name on macOS
    "TCP_KEEPINTVL": 4,  # seconds until it is asked again
    "TCP_KEEPCNT": 11,  # questions without an answer, then the connection is given up
    "TCP_USER_TIMEOUT": 65_000,  # milliseconds without progress in sending, then so is it; Linux only
}


def watch_connections(port: int) -> None:
    """Have the TCP connections that use `port`, here or on the other side, watched as long as this process runs.

    Does nothing on Windows, where a process cannot list its sockets.
    """
    if OPEN_FILES.is_dir():
        threading.Thread(target=_sweep_for_ever, args=(port,), daemon=True).start()


def _sweep_for_ever(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):  # so many files are open that not even their list can be
            for file in OPEN_FILES.iterdir():
                with contextlib.suppress(OSError):  # no socket, not connected, or closed in the meantime
                    _watch(int(file.name), port)
        time.sleep(SWEEP_PAUSE)


def _watch(descriptor: int, port: int) -> None:
    """Set the options on the socket with this file descriptor, if it is a connection that uses `port`."""
    connection = socket.socket(fileno=descriptor)
    try:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if port in (connection.getsockname()[1], connection.getpeername()[1]):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in OPTIONS.keys() & vars(socket).keys():
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), OPTIONS[name])
    finally:
        connection.detach()  # it is gRPC's, not ours to close

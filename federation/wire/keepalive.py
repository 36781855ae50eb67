"""Notice a lost network, which neither Flower nor gRPC's defaults do in reasonable time.

When a device loses its Wi-Fi, the other side is not notified: an idle client would wait for ever, and Flower's server,
which pings its clients every 210 s, would notice after minutes. A client cannot ping more often than every five
minutes: the server would drop it ("Too many pings"), and Flower has no setting for either. TCP can probe whether the
other side is still there, but gRPC has no setting for that. So this module finds the connections among the open files
of this process, and sets it there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

SWEEP_PAUSE = 5  # seconds
OPEN_FILES = Path("/dev/fd")  # on Linux and macOS

SILENCE = 20  # seconds until the other side is probed
ASK_EVERY = 4  # seconds between probes


def watch_connections(give_up_after: int) -> None:
    """End the TCP connections of this process after `give_up_after` seconds without the other side.

    Does nothing on Windows, where a process cannot list its sockets.
    """
    if OPEN_FILES.is_dir():
        threading.Thread(target=_sweep_for_ever, args=(give_up_after,), daemon=True).start()


def _sweep_for_ever(give_up_after: int) -> None:
    options = {
        "TCP_KEEPIDLE": SILENCE,
        "TCP_KEEPALIVE": SILENCE,  # its name on macOS
        "TCP_KEEPINTVL": ASK_EVERY,
        "TCP_KEEPCNT": (give_up_after - SILENCE) // ASK_EVERY,  # probes without a reply
        "TCP_USER_TIMEOUT": 1000 * give_up_after,  # milliseconds without progress in sending; Linux only
    }
    while True:
        with contextlib.suppress(OSError):  # too many files are open even to list them
            for file in OPEN_FILES.iterdir():
                with contextlib.suppress(OSError):  # no socket, not connected, or closed in the meantime
                    _watch(int(file.name), options)
        time.sleep(SWEEP_PAUSE)


def _watch(descriptor: int, options: dict[str, int]) -> None:
    """Set the options on the socket with this file descriptor, if it is a TCP connection."""
    connection = socket.socket(fileno=descriptor)
    try:
        if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in options.keys() & vars(socket).keys():
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), options[name])
    finally:
        connection.detach()  # it is gRPC's, not ours to close

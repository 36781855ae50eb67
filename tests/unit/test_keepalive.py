"""Connections are watched, so that a network that is lost is noticed; nothing else is touched."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from federation.wire import keepalive

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other options")


def is_watched(end: socket.socket) -> bool:
    return bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_a_lost_connection_is_given_up_after_65_seconds():
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted = stack.enter_context(server.accept()[0])
        no_tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        keepalive.watch_connections(65)
        deadline = time.monotonic() + 10
        while not (is_watched(client) and is_watched(accepted)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for end in (client, accepted):
            idle, interval, count, timeout = (
                end.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
                for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
            )
            assert 60 <= idle + interval * count <= 65 and timeout == 65000
        assert not is_watched(no_tcp)
        client.sendall(b"still usable")
        assert accepted.recv(100) == b"still usable"

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
        server, other = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        client, stranger = (stack.enter_context(socket.create_connection(s.getsockname())) for s in (server, other))
        accepted = stack.enter_context(server.accept()[0])
        keepalive.watch_connections(server.getsockname()[1])
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
        assert not any(map(is_watched, (server, other, stranger)))
        client.sendall(b"still usable")
        assert accepted.recv(100) == b"still usable"

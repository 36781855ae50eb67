"""Connections are watched, so that a network that is lost is noticed; nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

from federation.wire import keepalive

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other options")


def is_watched(end: socket.socket) -> bool:
    return bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


@contextlib.contextmanager
def connection(host: str = "127.0.0.1"):
    """Yield both ends of a connection on this machine and its server's port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()
        with socket.create_connection(address[:2]) as client, server.accept()[0] as accepted:
            yield client, accepted, address[1]


def test_connections_are_watched():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            with socket.create_connection(other.getsockname()) as stranger:
                keepalive.watch_connections(port)
                deadline = time.monotonic() + 10
                while not (is_watched(client) and is_watched(accepted)):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                for end in (client, accepted):
                    assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == keepalive.IDLE
                    assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == keepalive.LOST * 1000
                assert not is_watched(stranger)
            client.sendall(b"still usable")
            assert accepted.recv(100) == b"still usable"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_lost_connection_is_given_up_after_65_seconds(host):
    with contextlib.ExitStack() as stack:
        try:
            client, accepted, port = stack.enter_context(connection(host))
        except OSError:
            pytest.skip("no IPv6 here")
        for end in (client, accepted):
            keepalive._watch(end.fileno(), port)
            assert is_watched(end)
            idle, interval, count, timeout = (
                end.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
                for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
            )
            assert 60 <= idle + interval * count <= 65 and timeout == 65000


def test_connections_of_others_and_what_is_no_connection_is_left_alone():
    with connection() as (client, accepted, port), socket.create_server(("127.0.0.1", 0)) as listening:
        keepalive._watch(client.fileno(), port + 1 if client.getsockname()[1] != port + 1 else port + 2)
        assert not is_watched(client)
        with pytest.raises(OSError):  # not connected
            keepalive._watch(listening.fileno(), port)
        assert not is_watched(listening)
        for end in socket.socketpair():  # of another family
            with end:
                keepalive._watch(end.fileno(), port)
                assert not is_watched(end)
        with Path(os.devnull).open() as file:
            with pytest.raises(OSError):
                keepalive._watch(file.fileno(), port)
            assert file.read() == ""  # still open


@pytest.mark.parametrize("trouble", [OSError, None])
def test_a_sweep_survives_files_that_come_and_go(monkeypatch, trouble):
    class Stop(BaseException):
        pass

    def pause(seconds):
        assert seconds == keepalive.SWEEP_PAUSE
        swept.append(list(looked_at))
        if len(swept) == 2:
            raise Stop

    def watch(descriptor, port):
        looked_at.append(descriptor)
        if trouble:
            raise trouble

    looked_at: list[int] = []
    swept: list[list[int]] = []
    monkeypatch.setattr(keepalive, "time", type("time", (), {"sleep": staticmethod(pause)}))
    monkeypatch.setattr(keepalive, "_watch", watch)
    with pytest.raises(Stop):
        keepalive._sweep_for_ever(80)
    first, both = swept
    assert {0, 1, 2} <= set(first) and len(both) > len(first)

"""The look before connecting: who answers like a Flower server, who does not, and whether TLS fits."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from federation.client import probe
from federation.handshake import Refused

import pytest
from fakes import self_signed
from processes import free_address

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # how a server that speaks HTTP/2 begins


@contextlib.contextmanager
def listening(answer):
    """Yield the address of a server that gives one connection to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


def test_a_server_without_tls():
    heard = []

    def answer(connection):
        heard.append(connection.recv(100))
        connection.sendall(SETTINGS)

    with listening(answer) as address:
        probe.probe(address, None)
    assert heard == [probe.HTTP2_PREFACE]


def test_nobody_is_there():
    with pytest.raises(ConnectionRefusedError):
        probe.probe(free_address(), None)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46"])
def test_without_root_certificate_somebody_else_is_there(said):
    with listening(lambda connection: (connection.recv(100), connection.sendall(said))) as address:
        with pytest.raises(
            Refused, match=f"the server at {address} wants TLS: give --root_certificate its ca.crt"
        ) as r:
            probe.probe(address, None)
        assert not r.value.again


def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(probe, "TIMEOUT", 0.05)
    silence = listening(lambda connection: connection.recv(1000) and connection.recv(1000))
    with silence as address, pytest.raises(OSError, match="timed out"):
        probe.probe(address, None)


def with_certificate(tmp_path, *name: str):
    certificate, key = self_signed(*name)
    (tmp_path / "pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")

    def answer(connection):
        with context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.recv(100)

    return answer


def test_a_server_with_the_certificate_that_is_expected(tmp_path):
    with listening(with_certificate(tmp_path)) as address:
        probe.probe(address, self_signed()[0])


def test_a_server_with_another_certificate(tmp_path):
    with listening(with_certificate(tmp_path, "another")) as address:
        expected = f"the server at {address} is another one than expected: its certificate does not fit --root_certif"
        with pytest.raises(Refused, match=expected):
            probe.probe(address, self_signed()[0])


def test_a_server_under_another_name_than_that_in_its_certificate(tmp_path):
    expected = "is another one than expected: .*localhost"
    with listening(with_certificate(tmp_path)) as address, pytest.raises(Refused, match=expected):
        probe.probe(address.replace("127.0.0.1", "localhost"), self_signed()[0])


def test_a_server_without_tls_where_a_certificate_is_expected():
    plain = listening(lambda connection: (connection.recv(1000), connection.sendall(SETTINGS)))
    with plain as address, pytest.raises(Refused, match="the server at 127.0.0.1:[0-9]+ does not speak TLS"):
        probe.probe(address, self_signed()[0])


def test_a_server_that_goes_down_just_now_may_come_back():
    with listening(lambda connection: connection.recv(1000)) as address:
        with pytest.raises(OSError) as error:
            probe.probe(address, self_signed()[0])
        assert not isinstance(error.value, ssl.SSLError)

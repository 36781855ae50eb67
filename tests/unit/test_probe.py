"""The look before connecting: who answers like a Flower server, who does not, and whether TLS fits."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from federation.client import probe
from federation.wire.handshake import Refused

import grpc
import pytest
from fakes import self_signed
from processes import free_address

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # how a server that speaks HTTP/2 begins


@contextlib.contextmanager
def listening(answer):
    """Yield the address of a server that gives each connection to `answer`, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve():
            while True:
                connection, _ = server.accept()
                with contextlib.suppress(OSError), connection:
                    if ended.is_set():
                        return
                    connection.settimeout(10)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        socket.create_connection(server.getsockname()).close()  # ends its waiting
        thread.join(10)
        assert not thread.is_alive()


def says(*parts: bytes):
    """Return what to give `listening` for a server that says something and hangs up."""

    def answer(connection):
        connection.recv(1000)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.01)

    return answer


def resets(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hangs_up(connection):
    pass


def wait_until_gone(connection):
    """Say nothing until the other side is gone."""
    while connection.recv(1000):
        pass


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


def test_a_server_whose_answer_comes_in_pieces():
    with listening(says(SETTINGS[:2], SETTINGS[2:8], SETTINGS[8:])) as address:
        probe.probe(address, None)


CERTIFICATE = self_signed()[0]
BOTH_WAYS = pytest.mark.parametrize("root_certificate", [None, CERTIFICATE], ids=["plaintext", "TLS"])


@BOTH_WAYS
@pytest.mark.parametrize("end", [hangs_up, resets, says()], ids=["at once", "reset", "after the question"])
def test_a_port_whose_server_is_not_up_yet(end, root_certificate):
    with listening(end) as address, pytest.raises(OSError) as error:
        probe.probe(address, root_certificate)
    assert not isinstance(error.value, ssl.SSLError)
    assert str(error.value) == "it closed the connection" or isinstance(error.value, ConnectionResetError)


@BOTH_WAYS
def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch, root_certificate):
    monkeypatch.setattr(probe, "TIMEOUT", 0.05)
    with listening(wait_until_gone) as address, pytest.raises(OSError, match="timed out"):
        probe.probe(address, root_certificate)


SOMEBODY_ELSE = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an old web server": b"<html>400</html>",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "mail": b"220 mail ESMTP\r\n",
    "nonsense": bytes(range(200)),
    "zeros": bytes(9),
    "half an answer": SETTINGS[:5],
    "one byte": b"\x00",
    "another frame": bytes((0, 0, 8, 7, 0, 0, 0, 0, 0)) + bytes(8),
    "settings of a stream": bytes((0, 0, 0, 4, 0, 0, 0, 0, 1)),
}


@pytest.mark.parametrize("who", SOMEBODY_ELSE)
def test_somebody_else_is_there(who):
    with listening(says(SOMEBODY_ELSE[who])) as address:
        expected = f"there is no Flower server at {address}: .* give the address that server.py printed"
        with pytest.raises(Refused, match=expected) as refused:
            probe.probe(address, None)
    assert not refused.value.again


@pytest.mark.parametrize("who", ["a web server", "ssh", "nonsense", "half an answer", "zeros"])
def test_somebody_else_is_there_where_a_certificate_is_expected(who):
    expected = "the server at 127.0.0.1:[0-9]+ does not speak TLS"
    with listening(says(SOMEBODY_ELSE[who])) as address, pytest.raises(Refused, match=expected):
        probe.probe(address, CERTIFICATE)


def test_a_few_bytes_and_then_silence(monkeypatch):
    monkeypatch.setattr(probe, "TIMEOUT", 0.05)
    telnet = listening(lambda connection: (connection.sendall(b"\xff\xfd\x18"), wait_until_gone(connection)))
    with telnet as address, pytest.raises(Refused, match="there is no Flower server"):
        probe.probe(address, None)


def wants_tls(address: str) -> None:
    with pytest.raises(Refused) as refused:
        probe.probe(address, None)
    assert str(refused.value) == f"the server at {address} wants TLS: give --root_certificate its ca.crt"
    assert not refused.value.again


def test_an_alert_of_tls():
    with listening(says(b"\x15\x03\x01\x00\x02\x02\x46")) as address:
        wants_tls(address)


def test_a_web_server_that_wants_tls():
    """Answers in plain text to plain text, like nginx."""

    def answer(connection):
        encrypted = connection.recv(1000).startswith(b"\x16\x03")
        connection.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76" if encrypted else b"HTTP/1.1 400 Bad Request\r\n")

    with listening(answer) as address:
        wants_tls(address)


def test_a_grpc_server_that_wants_tls():
    certificate, key = self_signed()
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    wants_tls(f"127.0.0.1:{port}")
    probe.probe(f"127.0.0.1:{port}", certificate)
    server.stop(0).wait()


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

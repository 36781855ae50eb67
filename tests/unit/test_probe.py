"""The look before connecting: who answers like a Flower server, who does not, and whether TLS fits."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from federation.wire import probe
from federation.wire.addresses import Address
from federation.wire.handshake import Refused

import grpc
import pytest
from fakes import self_signed

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # how a server that speaks HTTP/2 begins
CERTIFICATE, KEY = self_signed()
BOTH_WAYS = pytest.mark.parametrize("root_certificate", [None, CERTIFICATE], ids=["plaintext", "TLS"])


@contextlib.contextmanager
def listening(answer):
    """Yield the address of a server that gives each connection to `answer`, one after the other."""
    with socketserver.TCPServer(("127.0.0.1", 0), lambda connection, *_: answer(connection)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Address(*server.server_address)
        server.shutdown()


def says(*parts: bytes):
    """Return what to give `listening` for a server that says something and hangs up."""

    def answer(connection):
        connection.recv(1000)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.01)

    return answer


def refusal(address: Address, root_certificate: bytes | None) -> str:
    with pytest.raises(Refused) as refused:
        probe.probe(address, root_certificate)
    assert not refused.value.again
    return str(refused.value)


def test_a_server_without_tls_whose_answer_comes_in_pieces():
    with listening(says(SETTINGS[:2], SETTINGS[2:8], SETTINGS[8:])) as address:
        probe.probe(address, None)


@BOTH_WAYS
@pytest.mark.parametrize("end", [lambda connection: None, says()], ids=["at once", "after the question"])
def test_a_port_whose_server_is_not_up_yet(end, root_certificate):
    with listening(end) as address, pytest.raises(OSError) as error:
        probe.probe(address, root_certificate)
    assert not isinstance(error.value, ssl.SSLError)
    assert str(error.value) == "it closed the connection" or isinstance(error.value, ConnectionResetError)


@BOTH_WAYS
def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch, root_certificate):
    monkeypatch.setattr(probe, "TIMEOUT", 0.05)
    with listening(lambda connection: connection.recv(1000) and connection.recv(1000)) as address, pytest.raises(
        OSError, match="timed out"
    ):
        probe.probe(address, root_certificate)


SOMEBODY_ELSE = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half an answer": SETTINGS[:5],
    "another frame": bytes((0, 0, 8, 7, 0, 0, 0, 0, 0)) + bytes(8),
}


@pytest.mark.parametrize("who", SOMEBODY_ELSE)
def test_somebody_else_is_there(who):
    with listening(says(SOMEBODY_ELSE[who])) as address:
        sentence = refusal(address, None)
        assert sentence.startswith(f"there is no Flower server at {address}: something else answers")
        assert f"the server at {address} does not speak TLS (" in refusal(address, CERTIFICATE)


@pytest.fixture
def server():
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    yield server
    server.stop(0).wait()


def test_a_server_without_tls(server):
    address = Address("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    probe.probe(address, None)
    assert refusal(address, CERTIFICATE).endswith("start it with --certificates, or leave out --root_certificate here")


def test_a_server_with_tls(server):
    credentials = grpc.ssl_server_credentials([(KEY, CERTIFICATE)])
    address = Address("127.0.0.1", server.add_secure_port("127.0.0.1:0", credentials))
    server.start()
    probe.probe(address, CERTIFICATE)
    expected = f"the server at {address} requires TLS: copy its ca.crt here and add --root_certificate ca.crt"
    assert refusal(address, None) == expected
    sentence = refusal(address, self_signed("another")[0])
    assert sentence.startswith(f"cannot trust the server at {address} (")
    assert sentence.endswith("): copy its ca.crt here again")
    sentence = refusal(Address("localhost", address.port), CERTIFICATE)  # the certificate is for 127.0.0.1
    assert sentence.endswith("): run ./make_certificates.sh localhost there and restart it")
    probe.probe(Address("localhost", address.port), CERTIFICATE, "127.0.0.1")

"""Look before connecting: gRPC reports all that can be wrong with a connection as UNAVAILABLE."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from federation.wire.addresses import split_address
from federation.wire.handshake import Refused
from federation.wire.tls import client_context

TIMEOUT = 5  # seconds

# How a conversation in HTTP/2 begins (RFC 9113, 3.4): the client's preface with empty settings, the server's settings.
# Each frame has a head of nine bytes: three for its length, then its kind (4: settings), flags and stream.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HTTP2_SETTINGS = bytes((4, 0, 0, 0, 0, 0))
HEAD = 9  # bytes
TLS_RECORDS = (b"\x15\x03", b"\x16\x03")  # how an alert and a handshake begin, in all versions of TLS
CERTIFICATE_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def probe(server_address: str, root_certificate: bytes | None) -> None:
    """Return if a Flower server could be there; raises OSError if nobody is, Refused if somebody else is or TLS fails.

    Whoever takes the connection and hangs up is nobody: so do Docker and ssh on a port that they forward to a server
    which is not up yet, and a server that goes down just now.
    """
    if root_certificate is None:
        _look_without_tls(server_address)
    else:
        _look_with_tls(server_address, root_certificate)


def somebody_else(server_address: str) -> Refused:
    """Return the refusal of an address where something answers that is no Flower server."""
    return Refused(
        f"there is no Flower server at {server_address}: something else answers, perhaps a web server or a SuperLink; "
        "give the address that server.py printed"
    )


def _look_without_tls(server_address: str) -> None:
    answer = _answer(server_address, HTTP2_PREFACE)
    if answer[3:] == HTTP2_SETTINGS:
        return
    if answer.startswith(TLS_RECORDS) or _speaks_tls(server_address):
        raise Refused(f"the server at {server_address} wants TLS: give --root_certificate its ca.crt")
    if not answer:
        raise OSError("it closed the connection")
    raise somebody_else(server_address)


def _speaks_tls(server_address: str) -> bool:
    """Tell whether TLS is spoken there: to who does not begin with it, gRPC says nothing, a web server 400."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):  # it wants to read the answer to what it has written
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=split_address(server_address)[0]).do_handshake()
    try:
        return _answer(server_address, hello.read()).startswith(TLS_RECORDS)
    except OSError:
        return False


def _answer(server_address: str, said: bytes) -> bytes:
    """Return the first bytes of the answer, none if he hangs up; raises OSError if nobody is there or he is silent."""
    answer = b""
    with socket.create_connection(split_address(server_address), timeout=TIMEOUT) as connection:
        try:
            connection.sendall(said)
            while len(answer) < HEAD and (more := connection.recv(HEAD - len(answer))):
                answer += more
        except OSError as error:
            if not answer and not isinstance(error, ConnectionError):  # a reset is one way to hang up
                raise
    return answer


def _look_with_tls(server_address: str, root_certificate: bytes) -> None:
    host, port = split_address(server_address)
    name = host.partition("%")[0]  # no certificate is for fe80::1%eth0
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
        try:
            client_context(root_certificate).wrap_socket(connection, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == CERTIFICATE_NOT_YET_VALID:  # a Raspberry Pi does not know the time when it starts
                today = time.strftime("%Y-%m-%d")
                raise OSError(f"its certificate is not valid yet; the clock here says {today}") from error
            reason = f"its certificate does not fit --root_certificate: {error.verify_message}"
            raise Refused(f"the server at {server_address} is another one than expected: {reason}") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise OSError("it closed the connection") from error
        except ssl.SSLError as error:
            raise Refused(f"the server at {server_address} does not speak TLS: {error.reason}") from error

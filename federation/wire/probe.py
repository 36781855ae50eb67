"""Look before connecting: gRPC reports everything that can be wrong with a connection as UNAVAILABLE."""

from __future__ import annotations

import socket
import ssl
import time

from federation.wire.addresses import Address
from federation.wire.handshake import Refused
from federation.wire.tls import client_context

TIMEOUT = 5  # seconds

# How a conversation in HTTP/2 begins (RFC 9113, 3.4): the client's preface with empty settings, the server's settings.
# Each frame has a head of nine bytes: three for its length, then its kind (4: settings), flags and stream.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HTTP2_SETTINGS = bytes((4, 0, 0, 0, 0, 0))
HEAD = 9  # bytes
CERTIFICATE_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL
OTHER_ADDRESS = 62, 64  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def probe(address: Address, root_certificate: bytes | None, name: str | None = None) -> None:
    """Return if there may be a Flower server; raises OSError if nothing answers, Refused if TLS or the server is wrong.

    Its certificate must be for `name`, or else for the address.
    A connection that is accepted and closed at once counts as no answer: Docker and ssh do that on a port that they
    forward to a server which is not up yet, and so does a server that is shutting down.
    """
    if root_certificate is None:
        _look_without_tls(address)
    else:
        _look_with_tls(address, root_certificate, name or address.host.partition("%")[0])  # none is for fe80::1%eth0


def somebody_else(address: Address) -> Refused:
    """Refusal of an address where something answers that is not a Flower server."""
    return Refused(
        f"there is no Flower server at {address}: something else answers, perhaps a web server or a SuperLink; "
        "use the address that server.py printed"
    )


def _look_without_tls(address: Address) -> None:
    answer = _answer(address)
    if answer[3:] == HTTP2_SETTINGS:
        return
    if _speaks_tls(address):
        raise Refused(f"the server at {address} requires TLS: copy its ca.crt here and add --root_certificate ca.crt")
    if not answer:
        raise OSError("it closed the connection")
    raise somebody_else(address)


def _speaks_tls(address: Address) -> bool:
    """Return whether TLS is spoken there, with any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as connection:
            context.wrap_socket(connection).close()
    except OSError:
        return False
    return True


def _answer(address: Address) -> bytes:
    """First bytes of an answer in HTTP/2, none if the other side hangs up; raises OSError if it is absent or silent."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        try:
            connection.sendall(HTTP2_PREFACE)
            return connection.makefile("rb").read(HEAD)
        except ConnectionError:  # a reset is a way to hang up, too
            return b""


def _look_with_tls(address: Address, root_certificate: bytes, name: str) -> None:
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        try:
            client_context(root_certificate).wrap_socket(connection, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            raise _certificate_error(address, error) from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise OSError("it closed the connection") from error
        except ssl.SSLError as error:
            what_to_do = "start it with --certificates, or leave out --root_certificate here"
            raise Refused(f"the server at {address} does not speak TLS ({error.reason}): {what_to_do}") from error


def _certificate_error(address: Address, error: ssl.SSLCertVerificationError) -> Exception:
    """Return the exception for a certificate that does not match --root_certificate, or is not valid yet."""
    if error.verify_code == CERTIFICATE_NOT_YET_VALID:  # a Raspberry Pi does not know the time when it starts
        return OSError(f"its certificate is not valid yet; the clock here says {time.strftime('%Y-%m-%d')}")
    if error.verify_code in OTHER_ADDRESS:
        what_to_do = f"run ./make_certificates.sh {address.host} there and restart it"
    else:
        what_to_do = "copy its ca.crt here again"
    return Refused(f"cannot trust the server at {address} ({error.verify_message}): {what_to_do}")

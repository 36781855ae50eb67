"""Look before connecting: gRPC reports all that can be wrong with a connection as UNAVAILABLE."""

from __future__ import annotations

import socket
import ssl
import time

from federation.addresses import split_address
from federation.handshake import Refused
from federation.tls import client_context

TIMEOUT = 5  # seconds

# How a conversation in HTTP/2 begins (RFC 9113, 3.4): the client's preface with empty settings, the server's settings.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HTTP2_SETTINGS = 4  # the fourth byte of such a frame
CERTIFICATE_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def probe(server_address: str, root_certificate: bytes | None) -> None:
    """Return if a Flower server could be there; raises OSError if nobody is, Refused if TLS does not fit."""
    host, port = split_address(server_address)
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
        if root_certificate is None:
            connection.sendall(HTTP2_PREFACE)
            answer = connection.recv(9)
            if answer[3:4] != bytes((HTTP2_SETTINGS,)):
                raise Refused(f"the server at {server_address} wants TLS: give --root_certificate its ca.crt")
            return
        try:
            client_context(root_certificate).wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == CERTIFICATE_NOT_YET_VALID:  # a Raspberry Pi does not know the time when it starts
                today = time.strftime("%Y-%m-%d")
                raise OSError(f"its certificate is not valid yet; the clock here says {today}") from error
            reason = f"its certificate does not fit --root_certificate: {error.verify_message}"
            raise Refused(f"the server at {server_address} is another one than expected: {reason}") from error
        except ssl.SSLEOFError as error:  # it went down just now
            raise OSError("it closed the connection") from error
        except ssl.SSLError as error:
            raise Refused(f"the server at {server_address} does not speak TLS: {error.reason}") from error

"""TLS: the server proves who it is, and what is sent is encrypted. make_certificates.sh makes the files for it."""

from __future__ import annotations

import ssl
from pathlib import Path

from federation.wire.addresses import is_loopback


def client_context(root_certificate: bytes) -> ssl.SSLContext:
    """Return what checks a server against a root certificate (PEM); raises ValueError if it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cadata=root_certificate.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("it holds no certificate in PEM format") from error
    return context


def read_root_certificate(path: Path) -> bytes:
    """Return the certificate in a file; raises OSError or ValueError if it is of no use."""
    content = path.read_bytes()
    client_context(content)
    return content


def read_server_certificates(folder: Path) -> tuple[bytes, bytes, bytes]:
    """Return ca.crt, server.pem and server.key in `folder`; raises OSError or ValueError if they are of no use."""
    ca, certificate, key = (folder / name for name in ("ca.crt", "server.pem", "server.key"))
    contents = ca.read_bytes(), certificate.read_bytes(), key.read_bytes()
    client_context(contents[0])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ValueError(f"server.pem and server.key do not fit together ({error.reason})") from error
    return contents


def warn_if_readable(address: str, encrypted: bool, flag: str) -> None:
    """Print a line if what goes to or from this address leaves the machine unencrypted; `flag` would change that."""
    if not encrypted and not is_loopback(address):
        print(f"not encrypted: others on the network can read the models ({flag} changes that)")

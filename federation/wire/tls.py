"""TLS: the server proves who it is, and what is sent is encrypted. make_certificates.sh makes the files for it."""

from __future__ import annotations

import ssl
from pathlib import Path

from federation.wire.addresses import Address

# A name in all certificates of make_certificates.sh. A client without an address checks this one: any server with a
# certificate signed by ca.crt is the right one, whatever its address is now.
FOUND = "localhost"


def client_context(root_certificate: bytes) -> ssl.SSLContext:
    """A TLS context that trusts this root certificate (PEM) alone; raises ValueError if it is not one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cadata=root_certificate.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("it contains no certificate in PEM format") from error
    return context


def read_root_certificate(path: Path) -> bytes:
    """Root certificate in a file; raises OSError or ValueError if it cannot be used."""
    content = path.read_bytes()
    client_context(content)
    return content


def read_server_certificates(folder: Path) -> tuple[bytes, bytes, bytes]:
    """ca.crt, server.pem and server.key in `folder`; raises OSError or ValueError if they cannot be used."""
    certificate, key = folder / "server.pem", folder / "server.key"
    contents = read_root_certificate(folder / "ca.crt"), certificate.read_bytes(), key.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ValueError(f"server.pem and server.key do not belong together ({error.reason})") from error
    return contents


def warn_if_readable(address: Address, encrypted: bool, flag: str) -> None:
    """Print a line if what goes to or from this address leaves the machine unencrypted; `flag` would change that."""
    if not encrypted and not address.is_loopback:
        print(f"not encrypted: others on the network can read the models ({flag} changes that)")

"""TLS: files that can be used and files that cannot, and the warning where there is none."""

from __future__ import annotations

from federation.wire.addresses import Address
from federation.wire.tls import read_root_certificate, read_server_certificates, warn_if_readable

import pytest
from fakes import self_signed

CERTIFICATE, KEY = self_signed()
FILES = {"ca.crt": CERTIFICATE, "server.pem": CERTIFICATE, "server.key": KEY}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_files_that_can_be_used(folder):
    assert read_server_certificates(folder) == (CERTIFICATE, CERTIFICATE, KEY)
    assert read_root_certificate(folder / "ca.crt") == CERTIFICATE


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_server_certificates(folder)
    assert error.value.filename == str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        *(("ca.crt", content, "it contains no certificate in PEM format") for content in (b"", b"\xff\xfe", KEY)),
        ("server.key", self_signed("another")[1], r"server\.pem and server\.key do not belong together"),
    ],
)
def test_a_file_that_cannot_be_used(folder, name, content, reason):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_server_certificates(folder)


@pytest.mark.parametrize(
    ("host", "encrypted", "warns"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
def test_the_warning(capsys, host, encrypted, warns):
    warn_if_readable(Address(host, 80), encrypted, "--certificates")
    expected = "not encrypted: others on the network can read the models (--certificates changes that)\n"
    assert capsys.readouterr().out == (expected if warns else "")

"""TLS: files that are of use and files that are not, and the warning where there is none."""

from __future__ import annotations

from federation.wire.tls import client_context, read_root_certificate, read_server_certificates, warn_if_readable

import pytest
from fakes import self_signed

CERTIFICATE, KEY = self_signed()
FILES = {"ca.crt": CERTIFICATE, "server.pem": CERTIFICATE, "server.key": KEY}


def write(folder, **changes: bytes) -> None:
    for name, content in {**FILES, **changes}.items():
        (folder / name).write_bytes(content)


def test_files_that_are_of_use(tmp_path):
    write(tmp_path)
    assert read_server_certificates(tmp_path) == (CERTIFICATE, CERTIFICATE, KEY)
    assert read_root_certificate(tmp_path / "ca.crt") == CERTIFICATE


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_server_certificates(tmp_path)
    assert error.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", KEY, CERTIFICATE[:200]])
def test_what_is_no_certificate(tmp_path, content):
    with pytest.raises(ValueError, match="it holds no certificate in PEM format"):
        client_context(content)
    (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(ValueError, match="it holds no certificate in PEM format"):
        read_root_certificate(tmp_path / "ca.crt")


@pytest.mark.parametrize(
    "changes", [{"server.key": self_signed("another")[1]}, {"server.key": b""}, {"server.pem": b"garbage"}]
)
def test_a_certificate_and_a_key_that_do_not_fit_together(tmp_path, changes):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"server\.pem and server\.key do not fit together"):
        read_server_certificates(tmp_path)


@pytest.mark.parametrize(
    ("address", "encrypted", "warns"),
    [("0.0.0.0:80", False, True), ("0.0.0.0:80", True, False), ("127.0.0.1:80", False, False)],
)
def test_the_warning(capsys, address, encrypted, warns):
    warn_if_readable(address, encrypted, "--certificates")
    expected = "not encrypted: others on the network can read the models (--certificates changes that)\n"
    assert capsys.readouterr().out == (expected if warns else "")

"""make_certificates.sh, as it runs on this machine."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

from federation.wire import tls

import pytest
from processes import PROMPTLY, ROOT


def make_certificates(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run the script in `folder`; its files go to `folder`/certificates."""
    shutil.copy(ROOT / "make_certificates.sh", folder)
    return subprocess.run([folder / "make_certificates.sh", *words], capture_output=True, text=True, timeout=PROMPTLY)


def accepts(certificates: Path, name: str) -> bool:
    """Whether a client that has ca.crt takes a server with server.pem for `name`, a name or an IPv4 address."""
    check = "-verify_ip" if name.replace(".", "").isdigit() else "-verify_hostname"
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", check, name, "server.pem"]
    return subprocess.run(command, cwd=certificates, capture_output=True, timeout=PROMPTLY).returncode == 0


def test_certificates_for_this_machine_and_then_for_more_names(tmp_path):
    certificates = tmp_path / "certificates"
    assert make_certificates(tmp_path).returncode == 0
    assert accepts(certificates, "localhost") and accepts(certificates, "127.0.0.1")
    root = (certificates / "ca.crt").read_bytes()
    made = make_certificates(tmp_path, "192.168.7.7", "laptop.lan")
    assert made.returncode == 0 and made.stderr == ""
    assert all(accepts(certificates, name) for name in ("localhost", "192.168.7.7", "laptop.lan"))
    assert tls.read_server_certificates(certificates)[0] == root  # so the devices need nothing new
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((certificates / name).stat().st_mode) == 0o600


def test_a_root_certificate_without_its_key_is_not_replaced(tmp_path):
    make_certificates(tmp_path)
    (tmp_path / "certificates/ca.key").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "certificates").iterdir()}
    made = make_certificates(tmp_path)
    assert made.returncode == 1 and "ca.key" in made.stderr and made.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "certificates").iterdir()} == before


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--x"], 2), (["two words"], 2), ([""], 2)])
def test_words_that_make_certificates_does_not_know(tmp_path, words, code):
    made = make_certificates(tmp_path, *words)
    assert made.returncode == code
    assert "./make_certificates.sh 192.168.1.10" in made.stdout + made.stderr
    assert not (tmp_path / "certificates").exists()
